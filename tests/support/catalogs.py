"""Catalogs as people make them: the one that `--discover` gives, with a few things selected."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from tap_mde_kbs.tap import TapMdeKbs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

STREAMS = ("machines", "missing_kbs", "missing_kbs_checks", "sweeps")
FEED_STREAMS = ("msrc_kbs", "msrc_kb_cves", "msrc_cves", "kev", "epss")


def discovered(source: str = "per_machine") -> dict[str, Any]:
    """What `--discover` prints, with this source of missing KBs."""
    tap = TapMdeKbs(config={"missing_kbs_source": source}, validate_config=False, setup_mapper=False)
    return deepcopy(tap.catalog_dict)


def selecting(*streams: str, without: Collection[tuple[str, str]] = (), source: str = "per_machine") -> dict[str, Any]:
    """That catalog with these streams selected.

    Args:
        streams: the names; the others are deselected.
        without: pairs of a stream and a property that is deselected.
        source: of missing KBs; it decides which streams there are.
    """
    catalog = discovered(source)
    for entry in catalog["streams"]:
        for item in entry["metadata"]:
            match item["breadcrumb"]:
                case []:
                    item["metadata"]["selected"] = entry["tap_stream_id"] in streams
                case [_, name]:
                    item["metadata"]["selected"] = (entry["tap_stream_id"], name) not in without
    return catalog


def feeds_alone() -> dict[str, Any]:
    """A catalog with the streams of all advisory feeds, and no other."""
    catalog = selecting()
    for name in FEED_STREAMS:
        root = {"breadcrumb": [], "metadata": {"selected": True}}
        catalog["streams"].append({"tap_stream_id": name, "schema": {}, "metadata": [root]})
    return catalog


def properties() -> Iterator[tuple[str, str]]:
    """Every property that is no key, as pairs of stream and name."""
    for entry in discovered()["streams"]:
        for name in entry["schema"]["properties"]:
            if name not in entry["key_properties"]:
                yield entry["tap_stream_id"], name

"""The version before the table was true, played: its messages out of today's, and its STATE, written by hand.

It had no stream `sweeps`, no `machines.listing`, no `missing_kbs.sweep`, no reason and no last report in a check; it
asked silent and excluded machines like all others; its STATE named machines by their ids, counted answers alone, and
had one bookmark of the sweep.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mde_simulator import Simulator

Message = dict[str, Any]

ASKS_EVERYBODY = {"silent_after_days": 0, "include_excluded": True}
"""Settings by which today's tap asks whom that version asked."""

UNHEARD_OF = {"machines": {"listing"}, "missing_kbs": {"sweep"}, "missing_kbs_checks": {"reason", "last_seen"}}
"""Columns that it did not have."""


def messages_of(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """What that version would have written, but for STATE."""
    written = []
    for message in messages:
        stream = message.get("stream")
        if message["type"] == "STATE" or stream == "sweeps":
            continue
        new: set[str] = UNHEARD_OF.get(str(stream), set())
        if message["type"] == "RECORD":
            record = {name: value for name, value in message["record"].items() if name not in new}
            written.append({**message, "record": record})
        elif message["type"] == "SCHEMA":
            properties = message["schema"]["properties"]
            kept = {name: value for name, value in properties.items() if name not in new}
            written.append({**message, "schema": {**message["schema"], "properties": kept}})
        else:
            written.append({**message})
    return written


def up_to_check(messages: Iterable[Message], checks: int) -> list[Message]:
    """The messages up to that many checks."""
    kept = []
    for message in messages:
        kept.append(message)
        checks -= message["type"] == "RECORD" and message["stream"] == "missing_kbs_checks"
        if not checks:
            return kept
    msg = "There are not as many checks."
    raise ValueError(msg)


def state_of(simulator: Simulator, messages: Iterable[Message], **sweep: Any) -> dict[str, Any]:
    """The STATE that it left after these messages of one run.

    Args:
        simulator: the tenant.
        messages: of that run, whole or not.
        sweep: keys of the sweep's bookmark that are not as after a run that was broken off.
    """
    rows: dict[str, list[dict[str, Any]]] = {"machines": [], "missing_kbs": [], "missing_kbs_checks": []}
    versions: dict[str, int] = {}
    for message in messages:
        if message["type"] == "RECORD":
            rows[message["stream"]].append(message["record"])
            versions.setdefault(message["stream"], message.get("version", 0))
    checks = rows["missing_kbs_checks"]
    return {
        "bookmarks": {
            "machines": {"version": versions["machines"], "listed": len(rows["machines"]), "short_lists": 0},
            "missing_kbs": {
                "sweep": {
                    "version": checks[0]["sweep"],
                    "scope": _scope(simulator),
                    "after": checks[-1]["machine_id"],
                    "deferred": [],
                    "failed": [],
                    "failed_before": [],
                    "asked_all": False,
                    "complete": False,
                    "answered": sum(check["outcome"] == "answered" for check in checks),
                    "answered_last": None,
                    "short_sweeps": 0,
                    "source_time": max(check["checked_at"] for check in checks),
                    **sweep,
                }
            },
        }
    }


def _scope(simulator: Simulator) -> str:
    """What that version hashed, of a tenant's own settings and nothing but the defaults besides."""
    config = simulator.config
    decides: list[object] = [config["tenant_id"], config["api_url"], "per_machine", None, False, []]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]

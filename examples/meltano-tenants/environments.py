# /// script
# dependencies = ["pyyaml"]
# ///
"""Makes an environment of Meltano for each tenant in `tenants.yaml`, and one for the marts over all.

`uv run environments.py` writes them into `tenants.meltano.yml`, which `meltano.yml` is to include, and the names into
`tenants.txt`, for `night`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
TAKEN = {"dev", "prod", "advisories"}
"""Environments that `meltano.yml` has already."""


def faults(tenants: Any) -> list[str]:
    """What is wrong with the list, an entry a line."""
    if not isinstance(tenants, list):
        return ["tenants.yaml holds no list."]
    said, names = [], set(TAKEN)
    for number, tenant in enumerate(tenants, start=1):
        given = tenant if isinstance(tenant, dict) else {}
        name = given.get("name")
        told = f"Entry {number} of tenants.yaml ({name})"
        if not isinstance(name, str) or not NAME.fullmatch(name):
            said.append(f"{told}: its name is to be of a-z, 0-9 and _, and to begin with a letter: it names a schema.")
        elif name in names:
            said.append(f"{told}: there is another one of that name.")
        names.add(name if isinstance(name, str) else "")
        if missing := {"tenant_id", "client_id", "secret"} - given.keys():
            said.append(f"{told}: it lacks {', '.join(sorted(missing))}.")
        if strange := given.keys() - {"name", "tenant_id", "client_id", "secret", "settings"}:
            said.append(f"{told}: {', '.join(sorted(map(str, strange)))} belongs under settings, if anywhere.")
    return said


def environment(tenant: dict[str, Any]) -> dict[str, Any]:
    """A tenant's: whom to ask, with a secret that Meltano takes from the variable, and the schema to load to."""
    tap = {
        "tenant_id": tenant["tenant_id"],
        "client_id": tenant["client_id"],
        "client_secret": f"${tenant['secret']}",
        **tenant.get("settings", {}),
    }
    plugins = {
        "extractors": [{"name": "tap-mde-kbs", "config": tap}],
        "loaders": [{"name": "target-postgres", "config": {"default_target_schema": tenant["name"]}}],
    }
    return {"name": tenant["name"], "config": {"plugins": plugins}}


tenants = yaml.safe_load((HERE / "tenants.yaml").read_text())
if wrong := faults(tenants):
    sys.exit("\n".join(wrong))
names = [tenant["name"] for tenant in tenants]
dbt = {"name": "dbt-postgres", "config": {"mde_schema": f"[{', '.join(names)}]"}}
environments = [
    *(environment(tenant) for tenant in tenants),
    {"name": "all-tenants", "config": {"plugins": {"utilities": [dbt]}}},
]
made = yaml.safe_dump({"environments": environments}, sort_keys=False)
(HERE / "tenants.meltano.yml").write_text(f"# Made by environments.py out of tenants.yaml.\n{made}")
(HERE / "tenants.txt").write_text("".join(f"{name}\n" for name in names))

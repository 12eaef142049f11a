# /// script
# dependencies = ["pyyaml"]
# ///
"""Makes an environment of Meltano for each tenant in `tenants.yaml`, and one for the marts over all.

`uv run environments.py` writes them into `tenants.meltano.yml`, which `meltano.yml` is to include, and the names into
`tenants.txt`, for `night`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


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
names = [tenant["name"] for tenant in tenants]
dbt = {"name": "dbt-postgres", "config": {"mde_schema": f"[{', '.join(names)}]"}}
environments = [
    *(environment(tenant) for tenant in tenants),
    {"name": "all-tenants", "config": {"plugins": {"utilities": [dbt]}}},
]
made = yaml.safe_dump({"environments": environments}, sort_keys=False)
(HERE / "tenants.meltano.yml").write_text(f"# Made by environments.py out of tenants.yaml.\n{made}")
(HERE / "tenants.txt").write_text("".join(f"{name}\n" for name in names))

"""The tenants, out of `tenants.yaml`. Knows no scheduler."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Tenant:
    """One tenant.

    Attributes:
        name: Its schema in the warehouse.
        tenant_id: The directory's id.
        client_id: The application's id.
        secret: The name of the environment variable that holds the client secret.
        settings: Others of the tap.
    """

    name: str
    tenant_id: str
    client_id: str
    secret: str
    settings: dict[str, Any] = field(default_factory=dict)

    def tap_settings(self) -> dict[str, str]:
        """The tap's settings as environment variables, the secret among them; the tap says so where there is none."""
        settings = {
            "tenant_id": self.tenant_id,
            "client_id": self.client_id,
            "client_secret": os.environ.get(self.secret, ""),
            **self.settings,
        }
        return {
            f"TAP_MDE_KBS_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in settings.items()
            if value is not None
        }


def listed(entries: Any) -> dict[str, Tenant]:
    """The tenants of a list, by name, in its order.

    Raises:
        ValueError: Names each entry that is none.
    """
    if not isinstance(entries, list):
        msg = "tenants.yaml holds no list."
        raise ValueError(msg)  # noqa: TRY004 - what is wrong is a value in a file
    tenants: dict[str, Tenant] = {}
    said = []
    for number, entry in enumerate(entries, start=1):
        name = entry.get("name") if isinstance(entry, dict) else None
        told = f"Entry {number} of tenants.yaml ({name})"
        if not isinstance(name, str) or not NAME.fullmatch(name):
            said.append(f"{told}: its name is to be of a-z, 0-9 and _, and to begin with a letter: it names a schema.")
        elif name in tenants:
            said.append(f"{told}: there is another one of that name.")
        else:
            try:
                tenants[name] = Tenant(**entry)
            except TypeError as error:
                said.append(f"{told}: {error}.")
    if said:
        raise ValueError("\n".join(said))
    return tenants


TENANTS = listed(yaml.safe_load(Path(__file__).with_name("tenants.yaml").read_text()))
"""By name, in the list's order."""

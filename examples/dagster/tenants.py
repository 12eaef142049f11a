"""The tenants, out of `tenants.yaml`. Knows no scheduler."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


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
        return {f"TAP_MDE_KBS_{name.upper()}": str(value) for name, value in settings.items()}


_LISTED = yaml.safe_load(Path(__file__).with_name("tenants.yaml").read_text())
TENANTS = {each["name"]: Tenant(**each) for each in _LISTED}
"""By name, in the list's order."""

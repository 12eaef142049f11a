"""Signing in with MSAL, as the tap does, by every credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msal

from .door import SCOPE

if TYPE_CHECKING:
    from .door import Door

AUDIENCE = SCOPE.removesuffix("/.default")


def application(door: Door, credential: Any) -> Any:
    """MSAL's application object, that asks the simulator alone."""
    config = door.simulator.config
    return msal.ConfidentialClientApplication(
        config["client_id"],
        client_credential=credential,
        authority=f"{config['authority_url']}/{config['tenant_id']}",
        instance_discovery=False,
        http_client=door.session,
    )


def sign_in(door: Door, credential: Any) -> dict[str, Any]:
    """What MSAL answers, with a new application each time."""
    answer: dict[str, Any] = application(door, credential).acquire_token_for_client([SCOPE])
    return answer


def managed(door: Door, client_id: str | None = None, resource: str = AUDIENCE) -> dict[str, Any]:
    """What MSAL answers for a managed identity; where it is says the environment."""
    identity = (
        msal.UserAssignedManagedIdentity(client_id=client_id) if client_id else msal.SystemAssignedManagedIdentity()
    )
    client = msal.ManagedIdentityClient(identity, http_client=door.session)
    answer: dict[str, Any] = client.acquire_token_for_client(resource=resource)
    return answer


def opens(door: Door, token: str) -> bool:
    """Whether the API takes the token."""
    url = f"{door.simulator.url}/api/machines?$top=1"
    return door.session.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10).status_code == 200

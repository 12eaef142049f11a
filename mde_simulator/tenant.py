"""The tenant: what it has, whichever service asks. Knows no rules, no faults and no sockets."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mde_simulator.http.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from mde_simulator.entra.identity import Identity
    from mde_simulator.exports.exports import Exports
    from mde_simulator.exports.storage import Storage
    from mde_simulator.feeds.feeds import Feeds
    from mde_simulator.fleet.fleet import Fleet


@dataclass(eq=False)
class Tenant:
    """One Defender tenant; what is changed here counts from the next request on.

    Attributes:
        fleet: Its machines.
        identity: Its application and the tokens that were given out.
        exports: Its vulnerability exports.
        storage: The host that has their files.
        feeds: What is publicly known of its updates.
        page_size: How many machines a page has at most, whatever is asked for.
        latency: Seconds that every answer of the API takes.
        clock: Seconds of the epoch, as the services have it; it may differ from the host's.
        journal: What it was asked, by whichever service.
    """

    fleet: Fleet
    identity: Identity
    exports: Exports
    storage: Storage
    feeds: Feeds
    page_size: int
    latency: float = 0.0
    clock: Callable[[], float] = time.time
    journal: Journal = field(default_factory=Journal)

    @property
    def url(self) -> str:
        """Where both API and login authority are."""
        return self.identity.url

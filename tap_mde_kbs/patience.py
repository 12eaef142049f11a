"""How long the tap waits before it asks again: every pause that is not the quota's, in one place.

Tests run a tap with shorter ones; there is no setting for them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Seconds, all of them.

    Attributes:
        retry: Before the second try of a call that gave no answer; twice as long before each further one.
        sign_in: The same for the sign-in. MSAL answers from a cache of failures for Retry-After, 5 s by default: an
            earlier try would not be one.
        machine: Before each time that deferred machines are asked again.
        file: Between two looks for a file of an export that is late.
        state: Between two STATE messages, at least.
        feed: For one advisory feed, all its files together, beyond what is normal: two minutes for the three of them.
    """

    retry: float = 1.0
    sign_in: float = 6.0
    machine: float = 3.0
    file: float = 5.0
    state: float = 10.0
    feed: float = 40.0

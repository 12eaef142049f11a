"""What the tap makes of a signal: the first ends it, once."""

from __future__ import annotations

import signal

import pytest

from tap_mde_kbs.errors import Interrupted
from tap_mde_kbs.signals import HELD
from tap_mde_kbs.tap import TapMdeKbs


def test_a_second_signal_is_not_raised_where_the_first_is_being_told_of() -> None:
    """It was, in a generator that was being closed: a traceback, though the end was a good one."""
    before, mask = [signal.getsignal(each) for each in HELD], signal.pthread_sigmask(signal.SIG_BLOCK, set())
    try:
        TapMdeKbs(config={"tenant_id": "t", "client_id": "c", "client_secret": "s"})
        end, again = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        assert callable(end)
        assert callable(again)
        with pytest.raises(Interrupted):
            end(signal.SIGINT, None)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) >= HELD
        again(signal.SIGTERM, None)
    finally:
        for each, handler in zip(HELD, before, strict=True):
            signal.signal(each, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

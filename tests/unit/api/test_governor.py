"""The governor uses the whole quota, and never more of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_mde_kbs.api.governor import Governor, retry_after
from tap_mde_kbs.errors import Stopped
from tests.support.virtual import TICK, Clock

DOCUMENTED = ((100, 60.0), (1500, 3600.0))
NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=timezone.utc)

limits = st.lists(st.tuples(st.integers(1, 6), st.floats(0.5, 30, allow_nan=False)), min_size=1, max_size=3)
gaps = st.lists(st.floats(0, 12, allow_nan=False), min_size=1, max_size=60)


def call(governor: Governor, clock: Clock) -> float:
    """Make a call as soon as it may go out; the moment it did."""
    while (wait := governor.delay()) > 0:
        clock.now += wait + TICK
    governor.sent()
    return clock.now


# --- windows -----------------------------------------------------------------------------------


@given(limits=limits, gaps=gaps, margin=st.sampled_from([0.0, 0.3]))
def test_no_window_ever_holds_more_calls_than_its_limit(
    limits: list[tuple[int, float]], gaps: list[float], margin: float
) -> None:
    """Whenever callers come, no more than the limit go out in any stretch of a window's length."""
    clock = Clock()
    governor = Governor(limits, margin=margin, clock=clock)
    sent = []
    for gap in gaps:
        clock.now += gap
        sent.append(call(governor, clock))
    for most, seconds in limits:
        for first, one_too_many in zip(sent, sent[most:], strict=False):
            assert one_too_many - first >= seconds + margin - TICK


@given(limits=limits, gaps=gaps, margin=st.sampled_from([0.0, 0.3]))
def test_a_caller_never_waits_when_it_need_not(
    limits: list[tuple[int, float]], gaps: list[float], margin: float
) -> None:
    """Who waits would break a window by going out at once, or a moment before the wait is over."""
    clock = Clock()
    governor = Governor(limits, margin=margin, clock=clock)
    sent: list[float] = []
    for gap in gaps:
        clock.now += gap
        if (wait := governor.delay()) > TICK:
            for moment in (clock.now, clock.now + wait - TICK):
                assert any(sum(when > moment - seconds - margin for when in sent) >= most for most, seconds in limits)
        sent.append(call(governor, clock))


def test_the_burst_goes_out_at_once_and_the_next_call_waits_for_the_window() -> None:
    """A hundred calls without waiting, then none until the first is a minute and a margin old."""
    clock = Clock()
    governor = Governor(DOCUMENTED, clock=clock)
    for _ in range(100):
        assert governor.delay() == 0.0
        governor.sent()
    assert governor.delay() == pytest.approx(60.3)
    clock.now += 60.3 + TICK
    assert governor.delay() == 0.0
    assert governor.calls == 100


def test_what_is_remembered_does_not_grow_with_the_calls() -> None:
    """A governor of 100,000 calls holds no more moments than its largest limits."""
    clock = Clock()
    governor = Governor([(2, 1.0), (7, 10.0)], clock=clock)
    for _ in range(100_000):
        clock.now += 2.0
        governor.sent()
    held = [len(times) for _, times in governor._windows]  # noqa: SLF001
    assert held == [2, 7]


def test_the_share_used_is_that_of_the_longest_window() -> None:
    """For the summary: how much of the hour's calls are used, other runs' not counted."""
    clock = Clock()
    governor = Governor([(2, 60.0), (10, 3600.0)], clock=clock)
    assert governor.used() == 0.0
    governor.sent()
    clock.now += 1800
    governor.sent()
    assert governor.used() == 0.2
    clock.now += 1801
    assert governor.used() == 0.1


def test_a_governor_without_limits_never_waits() -> None:
    """No limits: only a 429 can make it wait."""
    governor = Governor([])
    governor.acquire()
    assert governor.delay() == 0.0
    assert governor.seconds_for(1_000_000) == 0.0


@pytest.mark.parametrize("limit", [(0, 60.0), (-1, 60.0), (100, 0.0)])
def test_a_limit_that_allows_nothing_is_refused(limit: tuple[int, float]) -> None:
    """It would wait for ever."""
    with pytest.raises(ValueError, match="at least one call"):
        Governor([limit])


@given(
    gaps=st.lists(st.floats(0, 5, allow_nan=False), min_size=20, max_size=60),
    back=st.floats(0.1, 100_000),
    at=st.integers(0, 19),
)
def test_a_clock_set_back_costs_one_window_at_most_and_breaks_none(gaps: list[float], back: float, at: int) -> None:
    """The governor's own clock goes back: the calls stay within the quota, and nobody hangs."""
    clock = Clock()
    governor = Governor([(5, 10.0)], clock=clock.wall)
    sent = []
    for number, gap in enumerate(gaps):
        clock.now += gap
        if number == at:
            clock.set_back += back
        came = clock.now
        sent.append(call(governor, clock))
        assert sent[-1] - came <= 10.3 + 2 * TICK
    for first, one_too_many in zip(sent, sent[5:], strict=False):
        assert one_too_many - first >= 10.0


# --- the pause after a 429 -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "waits"),
    [(0.0, 1.0), (-5.0, 1.0), (7.0, 7.0), (3600.0, 3600.0), (86400.0, 3600.0), (1e300, 3600.0)],
)
def test_a_pause_is_as_long_as_asked_between_a_second_and_an_hour(asked: float, waits: float) -> None:
    """Retry-After is obeyed, but neither hammered at nor waited for until tomorrow."""
    governor = Governor(DOCUMENTED, clock=Clock())
    governor.pause(asked)
    assert governor.delay() == waits
    assert governor.throttled == 1


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    """Calls in flight are refused one after the other; the latest end holds."""
    governor = Governor(DOCUMENTED, clock=Clock())
    governor.pause(30.0)
    governor.pause(5.0)
    assert governor.delay() == 30.0


def test_a_pause_of_unknown_length_grows_until_a_call_succeeds() -> None:
    """No Retry-After: 2 s, 4 s, 8 s, …, an hour at most, and from the beginning after a success."""
    clock = Clock()
    governor = Governor(DOCUMENTED, clock=clock)
    waits = []
    for _ in range(13):
        governor.pause(None)
        waits.append(round(governor.delay(), 3))
        clock.now += governor.delay() + TICK
    assert waits[:4] == [2, 4, 8, 16]
    assert waits[-2:] == [3600, 3600]
    governor.succeeded()
    governor.pause(None)
    assert governor.delay() == 2


def test_several_refusals_of_the_same_moment_are_one_pause() -> None:
    """Four calls in flight, all refused without Retry-After: it grows by one step."""
    clock = Clock()
    governor = Governor(DOCUMENTED, clock=clock)
    for _ in range(4):
        governor.pause(None)
    assert governor.delay() == 2
    clock.now += 2 + TICK
    governor.pause(None)
    assert governor.delay() == 4
    assert governor.throttled == 5


# --- Retry-After ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("17", 17),
        (" 17 ", 17),
        ("1.5", 1.5),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30),
        ("Tuesday, 24-Nov-26 12:00:30 GMT", 30),
        ("Tue Nov 24 12:00:30 2026", 30),
        ("Tue, 24 Nov 2026 13:00:30 +0100", 30),
        ("Tue, 24 Nov 2026 11:59:00 GMT", 0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str, seconds: float) -> None:
    """RFC 9110: a number of seconds, or any of the three forms of an HTTP date."""
    assert retry_after(value, NOW) == seconds


def test_a_date_without_a_zone_is_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """An HTTP date is in GMT, also in the oldest of its forms, which does not say so."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert retry_after("Tue Nov 24 12:00:30 2026", NOW) == 30
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "soon",
        "-5",
        "1e3",
        "nan",
        "inf",
        "٣",
        "Tue, 99 Nov 2026 12:00:30 GMT",
        "0x10",
    ],
)
def test_an_unreadable_retry_after_is_none(value: str | None) -> None:
    """Then the wait grows by itself."""
    assert retry_after(value, NOW) is None


@given(st.one_of(st.text(), st.integers().map(str), st.just("9" * 6000)))
def test_no_retry_after_whatsoever_breaks_the_pause(value: str) -> None:
    """Whatever the server sends, the pause is between a second and an hour."""
    governor = Governor(DOCUMENTED, clock=Clock())
    governor.pause(retry_after(value, NOW))
    assert 1 <= governor.delay() <= 3600


# --- the estimate --------------------------------------------------------------------------------


@given(limits=limits, gaps=gaps, rounds=st.floats(0, 3, exclude_max=True), pause=st.sampled_from([None, 20.0]))
def test_the_estimate_is_what_the_calls_then_take(
    limits: list[tuple[int, float]], gaps: list[float], rounds: float, pause: float | None
) -> None:
    """Played through from any state, up to three rounds of the slowest window: exact."""
    clock = Clock()
    governor = Governor(limits, clock=clock)
    for gap in gaps:
        clock.now += gap
        call(governor, clock)
    if pause is not None:
        governor.pause(pause)
    most, _ = max(limits, key=lambda limit: (limit[1] + 0.3) / limit[0])
    begun, further = clock.now, max(1, int(rounds * most))
    estimate = governor.seconds_for(further)
    for _ in range(further):
        call(governor, clock)
    assert estimate == pytest.approx(clock.now - begun, abs=0.01)


@pytest.mark.parametrize("used", [0, 50, 730, 1500])
def test_the_estimate_beyond_is_right_to_a_percent_whatever_was_used(used: int) -> None:
    """What earlier calls of the hour leave is counted in."""
    clock = Clock()
    governor = Governor(DOCUMENTED, clock=clock)
    for _ in range(used):
        call(governor, clock)
    begun, estimate = clock.now, governor.seconds_for(20_000)
    for _ in range(20_000):
        call(governor, clock)
    assert estimate == pytest.approx(clock.now - begun, rel=0.01)


@pytest.mark.parametrize(("calls", "minutes"), [(1, 0), (100, 0), (101, 1), (1001, 10), (10_001, 370), (100_001, 3970)])
def test_the_estimate_of_the_documented_quota_is_right_to_a_percent(calls: int, minutes: float) -> None:
    """1,000 machines in 10 minutes, 10,000 in 6 h 10 min; told at once, whatever the fleet."""
    estimate = Governor(DOCUMENTED, clock=Clock()).seconds_for(calls)
    assert estimate == pytest.approx(minutes * 60, rel=0.01)


# --- real threads --------------------------------------------------------------------------------


def in_line(governor: Governor, callers: int) -> None:
    """Wait until so many callers wait."""
    while len(governor._line) < callers:  # noqa: SLF001
        time.sleep(0.001)


def test_callers_are_served_in_the_order_in_which_they_came() -> None:
    """Nobody overtakes, however many wait."""
    governor = Governor([(1, 0.02)], margin=0.0)
    governor.pause(1.0)
    served = []

    def caller(number: int) -> None:
        governor.acquire()
        served.append(number)

    threads = []
    for number in range(12):
        threads.append(threading.Thread(target=caller, args=(number,)))
        threads[-1].start()
        in_line(governor, number + 1)
    for thread in threads:
        thread.join()
    assert served == list(range(12))


def test_threads_together_keep_the_window() -> None:
    """Eight threads, forty calls, five in a tenth of a second: seven windows at least."""
    governor = Governor([(5, 0.1)], margin=0.0)
    begun = time.monotonic()

    def caller() -> None:
        for _ in range(5):
            governor.acquire()

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert governor.calls == 40
    assert time.monotonic() - begun >= 0.7


def test_stop_wakes_whoever_waits_and_lets_nobody_out_any_more() -> None:
    """The time limit is over, or someone pressed Ctrl-C: nobody sits out the hour."""
    governor = Governor([(1, 3600.0)])
    governor.acquire()
    stopped = []

    def caller() -> None:
        with pytest.raises(Stopped):
            governor.acquire()
        stopped.append(True)

    threads = [threading.Thread(target=caller) for _ in range(5)]
    for thread in threads:
        thread.start()
    in_line(governor, 5)
    governor.stop()
    for thread in threads:
        thread.join(timeout=30)
    assert len(stopped) == 5
    with pytest.raises(Stopped):
        governor.acquire()
    assert governor.calls == 1


def test_a_signal_handler_may_stop_the_governor_its_own_thread_waits_for() -> None:
    """The machine list is asked for on the main thread, where signals arrive."""
    governor = Governor([(1, 3600.0)])
    governor.acquire()
    before = signal.signal(signal.SIGUSR1, lambda *_: governor.stop())
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(Stopped):
            governor.acquire()
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_caller_that_is_interrupted_leaves_the_line() -> None:
    """A KeyboardInterrupt in one caller does not keep those behind it waiting."""
    governor = Governor([(1, 3600.0)])
    governor.acquire()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            governor.acquire()
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not governor._line  # noqa: SLF001


def test_a_pause_holds_everybody_back() -> None:
    """A 429 of one call makes all the others wait, also those already in line."""
    clock = Clock()
    governor = Governor([(100, 60.0)], clock=clock)
    governor.pause(30.0)
    served = []

    def caller() -> None:
        governor.acquire()
        served.append(clock.now)

    threads = [threading.Thread(target=caller) for _ in range(3)]
    for thread in threads:
        thread.start()
    in_line(governor, 3)
    assert not served
    clock.now += 30.0
    for thread in threads:
        thread.join()
    assert served == [30.0] * 3

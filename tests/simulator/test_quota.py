"""The quota, on virtual time."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mde_simulator import Quota


class Clock:
    """Time that passes by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


LIMITS = st.lists(st.tuples(st.integers(1, 6), st.sampled_from([1.0, 2.5, 10.0])), min_size=1, max_size=2)
GAPS = st.lists(st.sampled_from([0.0, 0.1, 0.25, 1.0, 3.0, 10.0]), max_size=60)


@given(LIMITS, GAPS)
def test_no_window_ever_holds_more_than_its_limit_and_room_is_never_refused(
    limits: list[tuple[int, float]], gaps: list[float]
) -> None:
    clock = Clock()
    quota = Quota(tuple(limits), clock)
    admitted: list[float] = []
    for gap in gaps:
        clock.now += gap
        now = clock.now
        counts = [sum(call + period > now + 1e-6 for call in admitted) for _, period in limits]
        room = all(count < limit for count, (limit, _) in zip(counts, limits, strict=True))
        wait = quota.admit()
        assert (wait is None) is room
        if wait is None:
            admitted.append(now)
        else:
            assert wait >= 1
            assert wait == int(wait)
    for limit, period in limits:
        for position, start in enumerate(admitted):
            inside = bisect_right(admitted, start + period - 1e-5) - position
            assert inside <= limit


@given(LIMITS, GAPS)
def test_who_waits_as_told_is_admitted_and_breaks_nothing(limits: list[tuple[int, float]], gaps: list[float]) -> None:
    clock = Clock()
    quota = Quota(tuple(limits), clock)
    for gap in gaps:
        clock.now += gap
        wait = quota.admit()
        if wait is not None:
            clock.now += wait
            assert quota.admit() is None
    assert quota.early == 0


def test_the_documented_quota_is_a_hundred_a_minute_and_fifteen_hundred_an_hour() -> None:
    clock = Clock()
    quota = Quota(clock=clock)
    for _ in range(15):
        assert [quota.admit() for _ in range(100)] == [None] * 100
        assert quota.admit() is not None
        clock.now += 60
    assert quota.admit() == 2700
    assert (quota.admitted, quota.refusals, quota.over) == (1500, 16, 16)


def test_a_call_before_retry_after_has_ended_is_early() -> None:
    clock = Clock()
    quota = Quota(((1, 10.0),), clock)
    assert quota.judge() == (None, None)
    assert quota.judge() == (10.0, "over")
    clock.now += 0.05
    assert quota.judge() == (10.0, "over"), "it was under way already"
    clock.now += 5
    assert quota.judge() == (5.0, "early")
    clock.now += 5.01
    assert quota.judge() == (None, None)
    assert (quota.over, quota.early, quota.violations) == (3, 1, 4)


def test_what_other_users_caused_is_no_fault_of_the_client() -> None:
    clock = Clock()
    quota = Quota(((10, 60.0),), clock)
    assert quota.consume(4) == 4
    assert [quota.admit() for _ in range(6)] == [None] * 6
    assert quota.judge() == (60.0, None)
    assert (quota.refusals, quota.over) == (1, 0)
    assert quota.consume(3) == 0


def test_a_quota_can_be_closed_for_a_while() -> None:
    clock = Clock()
    quota = Quota((), clock)
    quota.close(5)
    clock.now += 1
    assert quota.judge() == (4.0, "early")
    clock.now += 4
    assert quota.judge() == (None, None)


def test_no_limits_admit_everything() -> None:
    assert {Quota(()).admit() for _ in range(500)} == {None}


@pytest.mark.parametrize("limits", [((0, 1.0),), ((1, 0.0),)])
def test_impossible_limits_are_refused(limits: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(ValueError, match="at least one call"):
        Quota(limits)


def test_a_hundred_thousand_calls_are_judged_quickly() -> None:
    clock = Clock()
    quota = Quota(clock=clock)
    for _ in range(100_000):
        clock.now += 2.4
        assert quota.admit() is None

"""The pace of the quota, on virtual time: the simulator's quota is the judge."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from mde_simulator.defender.quota import DOCUMENTED, Quota
from tap_mde_kbs.api.governor import Governor
from tap_mde_kbs.state import SweepBookmark
from tap_mde_kbs.sweep.sweep import Listed, sweeps
from tests.support.virtual import Clock, Network

if TYPE_CHECKING:
    from collections.abc import Callable

LIST_CALLS = 2


def bound(machines: int, limits: tuple[tuple[int, float], ...] = DOCUMENTED, listing: int = LIST_CALLS) -> float:
    """Seconds from the first call to the last, were every window filled at its very beginning."""
    (_, minute), (per_hour, hour) = limits
    per_minute = limits[0][0]
    hours, rest = divmod(machines + listing - 1, per_hour)
    return hours * hour + rest // per_minute * minute


def network(
    *,
    size: int = 4,
    latency: float = 0.2,
    limits: tuple[tuple[int, float], ...] = DOCUMENTED,
    tokens: bool = False,
) -> Network[str]:
    """A tenant with the documented quota, and a governor that knows it."""
    clock = Clock()
    return Network(
        clock,
        Governor(limits, clock=clock),
        Quota(clock=clock, grace=latency + 0.001),
        ask=lambda machine_id: machine_id,
        size=size,
        latency=lambda: latency,
        tokens=tokens,
    )


def run(net: Network[str], machines: int, each: Callable[[int], None] = lambda _: None) -> float:
    """List the machines, and sweep them; the seconds that took."""
    begun = net.clock.now
    net.list_machines()
    listed = (Listed(f"{number:040x}") for number in range(machines))
    work = sweeps(SweepBookmark(), listed, scope="s", pool=net, now=net.clock.wall, sleep=net.sleep)
    for sweep in work:
        for done, outcome in enumerate(sweep.outcomes()):
            assert outcome.answer == outcome.machine.id
            sweep.written(outcome)
            each(done)
        assert sweep.verdict is not None
        assert sweep.verdict.activate
        assert sweep.bookmark.counts.answered == machines
    return net.clock.now - begun


@pytest.mark.parametrize(("machines", "minutes"), [(1_000, 10), (10_000, 6 * 60 + 10), (100_000, 66 * 60 + 10)])
def test_a_fleet_takes_what_the_quota_allows_and_a_percent(machines: int, minutes: int) -> None:
    """1,000 machines in 10 minutes, 10,000 in 6 h 10 min, 100,000 by the same code; no 429."""
    net = network()
    took = run(net, machines)
    assert bound(machines) == minutes * 60
    assert bound(machines) <= took <= bound(machines) * 1.01
    assert net.quota.refusals == 0
    assert net.governor.calls == net.quota.admitted == machines + LIST_CALLS


@pytest.mark.parametrize(
    ("latency", "size", "machines"),
    [
        (0.2, 4, 1_000),
        (1.0, 4, 1_000),
        (3.0, 6, 1_000),
        (0.2, 4, 10_000),
        (1.0, 4, 10_000),
        (3.0, 4, 10_000),
    ],
)
def test_slow_answers_cost_nothing_as_long_as_enough_calls_are_in_flight(
    latency: float, size: int, machines: int
) -> None:
    """With answers after 3 s four calls in flight are 80 a minute: 1,000 machines need more.

    The second page of the list waits for the first, and the last answer is waited for.
    """
    net = network(latency=latency, size=size)
    assert run(net, machines) <= (bound(machines) + 2 * latency) * 1.01
    assert net.quota.refusals == 0


def test_with_too_few_calls_in_flight_the_server_sets_the_pace() -> None:
    """Four calls at 3 s each: three seconds for four machines, and nothing on top."""
    net = network(latency=3.0, size=4)
    assert run(net, 1_000) <= 1_002 * 3 / 4 * 1.01
    assert net.quota.refusals == 0


def test_calls_that_overtake_each_other_on_the_way_cause_no_refusal() -> None:
    """The server counts on arrival: a tenth of a second of jitter is within the margin."""
    net = network()
    chance = random.Random(5)  # noqa: S311 - no secret
    net.latency = lambda: chance.uniform(0.05, 0.55)
    assert run(net, 3_000) <= bound(3_000) * 1.01
    assert net.quota.refusals == 0


def other_user(net: Network[str], every: float = 7.2) -> None:
    """Another user of the application: a third of the hour's calls, which he insists on."""
    look = 0.2
    begun = net.clock.now
    made = 0

    def call() -> None:
        nonlocal made
        made += net.quota.consume(int((net.clock.now - begun) / every) - made)
        net.at(net.clock.now + look, call)

    net.at(net.clock.now, call)


def test_with_a_share_of_the_quota_another_user_has_the_rest() -> None:
    """`requests_per_minute` 66 and `requests_per_hour` 1,000: no 429, on either side."""
    share = ((66, 60.0), (1_000, 3600.0))
    net = network(limits=share)
    other_user(net, every=7.3)
    took = run(net, 10_000)
    assert took <= bound(10_000, share) * 1.01
    assert net.quota.refusals == 0


@pytest.mark.parametrize("latency", [0.2, 1.0, 3.0])
def test_another_user_nobody_told_of_costs_his_share_and_no_machine(latency: float) -> None:
    """A third of the quota is used by someone else: 429s are obeyed, and every machine answers."""
    net = network(latency=latency)
    other_user(net)
    took = run(net, 10_000)
    assert took <= bound(10_000, ((66, 60.0), (1_000, 3600.0))) * 1.01
    assert net.quota.refusals == net.governor.throttled > 0
    assert net.quota.violations == 0


def test_tokens_that_expire_cost_a_call_each() -> None:
    """Every hour some calls in flight learn that the token is too old, and are made again."""
    net = network(tokens=True)
    assert run(net, 10_000) <= bound(10_000) * 1.01
    assert 6 <= net.expired <= 6 * 4
    assert net.governor.calls == 10_000 + LIST_CALLS + net.expired
    assert net.quota.refusals == 0


@pytest.mark.parametrize("back", [3.0, 3600.0, 400 * 86400.0])
def test_a_wall_clock_set_back_changes_nothing(back: float) -> None:
    """The quota is paced by the monotonic clock."""
    net = network()

    def each(done: int) -> None:
        if done == 500:
            net.clock.set_back = back

    assert run(net, 3_000, each) <= bound(3_000) * 1.01
    assert net.quota.refusals == 0


def test_even_a_governors_clock_set_back_causes_no_refusal_and_no_long_wait() -> None:
    """Were the clock not monotonic, an hour back costs at most the gap since the last look."""
    net = network()
    net.governor = Governor(DOCUMENTED, clock=net.clock.wall)

    def each(done: int) -> None:
        if done == 500:
            net.clock.set_back = 3600.0

    assert run(net, 3_000, each) <= bound(3_000) * 1.01
    assert net.quota.refusals == 0

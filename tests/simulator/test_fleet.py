"""The fleet: determinism, time, truth, and what is done by hand."""

from __future__ import annotations

import threading

import pytest

from mde_simulator import Fleet


def picture(fleet: Fleet) -> object:
    """All there is to see of a fleet today."""
    ids = fleet.listed()
    return (
        fleet.listing(),
        [fleet.machine(id_) for id_ in ids],
        [fleet.missing_kbs(id_) for id_ in ids],
    )


def test_the_same_seed_gives_the_same_fleet_and_another_seed_another() -> None:
    assert picture(Fleet(120, seed=7)) == picture(Fleet(120, seed=7))
    assert set(Fleet(120, seed=7).listed()).isdisjoint(Fleet(120, seed=8).listed())


def test_a_night_is_the_same_whether_waited_for_or_begun_at() -> None:
    waited = Fleet(300, seed=2)
    for days in (1, 9, 0, 32):
        waited.pass_days(days)
    assert waited.day == 42
    assert picture(waited) == picture(Fleet(300, seed=2, night=42))


def test_past_days_can_still_be_asked() -> None:
    fleet = Fleet(200, seed=3)
    remembered = []
    for _ in range(6):
        remembered.append((fleet.listed(), fleet.missing()))
        fleet.pass_days(7)
    assert [(fleet.listed(day), fleet.missing(day)) for day in range(0, 42, 7)] == remembered
    assert remembered[0] != remembered[-1]


@pytest.mark.parametrize("day", [-1, 1])
def test_the_future_and_what_was_before_day_0_are_not_told(day: int) -> None:
    with pytest.raises(ValueError, match="between 0 and today"):
        Fleet(3).missing(day)


def test_so_many_distinct_machines_are_listed_on_the_first_day() -> None:
    for machines in (0, 1, 2, 230):
        fleet = Fleet(machines, seed=1)
        assert len(set(fleet.listed())) == len(fleet.listed()) == machines
        assert set(fleet.listing()) == set(fleet.listed())


def test_some_ids_come_twice_in_the_listing() -> None:
    fleet = Fleet(250, seed=1)
    assert len(fleet.listing()) == 253
    assert Fleet(250, seed=1, duplicates=0).listing() == list(fleet.listed())


def test_the_truth_is_what_the_rows_say() -> None:
    fleet = Fleet(150, seed=1, night=10)
    truth = fleet.missing()
    assert set(truth) == set(fleet.onboarded())
    for id_ in fleet.listed():
        ids = [row["id"] for row in fleet.missing_kbs(id_)]
        assert len(ids) == len(set(ids))
        assert set(ids) == truth.get(id_, set())


def test_machine_missed_on_counts_the_machines() -> None:
    fleet = Fleet(150, seed=1, night=10)
    truth = fleet.missing()
    kb_id = next(iter(fleet.missed_on()))
    assert fleet.kb(kb_id)["machineMissedOn"] == sum(kb_id in ids for ids in truth.values()) > 0


def test_machine_missed_on_is_counted_anew_when_time_passes() -> None:
    fleet = Fleet(150, seed=1, night=10)
    assert fleet.missed_on()
    fleet.pass_days(20)
    assert fleet.missed_on() == Fleet(150, seed=1, night=30).missed_on()


def test_only_windows_machines_miss_updates() -> None:
    fleet = Fleet(300, seed=1, night=10)
    for id_, missing in fleet.missing().items():
        if missing:
            assert str(fleet.machine(id_)["osPlatform"]).startswith("Windows")


def test_patch_tuesday_brings_updates_and_machines_install_them_at_different_paces() -> None:
    fleet = Fleet(300, seed=1, night=7)
    counts = []
    for _ in range(25):
        counts.append(sum(map(len, fleet.missing().values())))
        fleet.pass_days()
    assert counts[1] > 1.5 * counts[0]
    assert counts[1] > counts[5] > counts[15] > counts[24] > 0
    missing = fleet.missing()
    assert any(not kbs for kbs in missing.values())
    assert any(len(kbs) > 5 for kbs in missing.values())


def test_an_update_comes_back_now_and_then() -> None:
    fleet = Fleet(300, seed=1, night=120)
    back = 0
    nights = [fleet.missing(day) for day in range(121)]
    for first, second, third in zip(nights, nights[1:], nights[10:], strict=False):
        for id_ in set(first) & set(second) & set(third):
            back += len((first[id_] - second[id_]) & third[id_])
    assert back > 0


def test_machines_come_go_quiet_and_leave() -> None:
    fleet = Fleet(1000, seed=1)
    before = set(fleet.listed())
    fleet.pass_days(60)
    after = set(fleet.listed())
    assert 30 < len(after - before) < 90
    assert 20 < len(before - after) < 90
    gone = next(iter(before - after))
    with pytest.raises(KeyError):
        fleet.machine(gone)
    with pytest.raises(KeyError):
        fleet.missing_kbs(gone)
    quiet = [fleet.machine(id_) for id_ in after if fleet.machine(id_)["healthStatus"] == "Inactive"]
    assert quiet
    assert all(str(machine["lastSeen"])[:10] < "2026-02-27" for machine in quiet if machine["lastSeen"])


def test_the_share_of_discovered_devices_can_be_chosen() -> None:
    assert Fleet(100, discovered=0).onboarded() == Fleet(100, discovered=0).listed()
    assert 150 < len(Fleet(1000, discovered=0.8).onboarded()) < 250


def test_an_update_installed_by_hand_is_no_longer_missing_from_that_day_on() -> None:
    fleet = Fleet(100, seed=1)
    id_, kb_id = next((id_, min(kbs)) for id_, kbs in fleet.missing().items() if kbs)
    fleet.pass_days()
    fleet.install(id_, kb_id)
    assert kb_id in fleet.missing(0)[id_]
    assert kb_id not in fleet.missing()[id_]
    fleet.pass_days()
    fleet.uninstall(id_, kb_id)
    assert [kb_id in fleet.missing(day)[id_] for day in range(3)] == [True, False, True]
    with pytest.raises(KeyError):
        fleet.install(id_, "no such update")


def test_a_machine_can_be_removed_added_hidden_and_shown() -> None:
    fleet = Fleet(20, seed=1, discovered=0)
    first, second, *_ = fleet.listed()
    fleet.pass_days()
    fleet.remove(first)
    fleet.hide([second])
    added = fleet.add(computerDnsName="new", osBuild=None)
    assert {first, second}.isdisjoint(fleet.listed())
    assert {first, second}.isdisjoint(fleet.missing())
    assert {first, second} <= set(fleet.missing(0))
    assert fleet.listed()[-1] == added
    assert added in fleet.missing()
    assert fleet.machine(added)["computerDnsName"] == "new"
    fleet.show([second])
    assert second in fleet.listed()
    with pytest.raises(ValueError, match="already"):
        fleet.add(id=added)


def test_properties_can_be_changed_and_strange_ones_added() -> None:
    fleet = Fleet(20, seed=1, extra_fields={"preview": {"a": [1]}})
    id_ = fleet.onboarded()[0]
    fleet.change(id_, strange="ünknown", lastSeen=None)
    machine = fleet.machine(id_)
    assert (machine["strange"], machine["lastSeen"], machine["preview"]) == (
        "ünknown",
        None,
        {"a": [1]},
    )
    fleet.pass_days()
    fleet.change(id_, onboardingStatus="CanBeOnboarded")
    assert id_ not in fleet.missing()
    assert id_ in fleet.missing(0)
    fleet.change(id_, onboardingStatus=None)
    assert id_ in fleet.missing()


def test_a_row_of_an_update_can_be_changed() -> None:
    fleet = Fleet(100, seed=1, night=9)
    kb_id = next(iter(fleet.missed_on()))
    fleet.change_kb(kb_id, productsNames=None, osBuild="text")
    assert (fleet.kb(kb_id)["productsNames"], fleet.kb(kb_id)["osBuild"]) == (None, "text")


def test_what_is_handed_out_is_a_copy() -> None:
    fleet = Fleet(5, extra_fields={"extra": [1]})
    id_ = fleet.listed()[0]
    extra = fleet.machine(id_)["extra"]
    assert isinstance(extra, list)
    extra.append(2)
    assert fleet.machine(id_)["extra"] == [1]


@pytest.mark.parametrize(("machines", "night"), [(-1, 0), (1, -1)])
def test_an_impossible_fleet_is_refused(machines: int, night: int) -> None:
    with pytest.raises(ValueError, match="no fewer"):
        Fleet(machines, night=night)


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="forwards"):
        Fleet(1).pass_days(-1)


def test_a_hundred_thousand_machines_are_made() -> None:
    fleet = Fleet(100_000, seed=1)
    assert len(fleet.listed()) == len(set(fleet.listed())) == 100_000
    assert fleet.missing_kbs(fleet.onboarded()[0]) is not None


def test_threads_may_ask_while_time_passes() -> None:
    fleet = Fleet(100, seed=1)
    failures: list[Exception] = []

    def ask() -> None:
        try:
            for id_ in fleet.listed() * 3:
                if fleet.is_listed(id_):
                    fleet.missing_kbs(id_)
        except KeyError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        fleet.pass_days()
        fleet.add()
    for thread in threads:
        thread.join()
    assert failures == []

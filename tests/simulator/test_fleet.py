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


def test_machines_come_fall_silent_and_leave() -> None:
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
    silent = [fleet.machine(id_) for id_ in after if fleet.machine(id_)["healthStatus"] == "Inactive"]
    assert silent
    assert all(str(machine["lastSeen"])[:10] < "2026-02-27" for machine in silent if machine["lastSeen"])


# What Defender does not know


def someone(fleet: Fleet) -> str:
    """A machine with missing updates, of which everything is known."""
    return next(id_ for id_, kbs in fleet.missing().items() if kbs and id_ not in fleet.not_assessed())


def test_a_silent_machine_is_known_for_30_days_and_listed_for_180() -> None:
    fleet = Fleet(60, seed=1, night=10, silent=0)
    id_ = someone(fleet)
    fleet.silence(id_)
    seen = str(fleet.machine(id_)["lastSeen"])[:19]
    for days in (29, 1):
        fleet.pass_days(days)
        assert fleet.missing_kbs(id_)
        assert fleet.missing()[id_] == fleet.lacking()[id_]
    fleet.pass_days()
    assert fleet.missing_kbs(id_) == []
    assert fleet.missing()[id_] == frozenset() != fleet.lacking()[id_]
    assert fleet.not_assessed()[id_] == "silent"
    assert str(fleet.machine(id_)["lastSeen"])[:19] == seen
    assert fleet.machine(id_)["healthStatus"] == "Inactive"
    fleet.pass_days(148)
    assert id_ in fleet.listed()
    assert fleet.missing(40)[id_] == fleet.lacking(40)[id_]
    fleet.pass_days()
    assert id_ not in fleet.listed()


def test_it_is_silent_by_what_the_list_says_of_it() -> None:
    fleet = Fleet(300, seed=1, night=60)
    moments = {id_: fleet.last_seen(id_) for id_ in fleet.listed()}
    newest = max(moment for moment in moments.values() if moment)
    silent = {id_ for id_, moment in moments.items() if moment and (newest - moment).total_seconds() > 30 * 86_400}
    said = fleet.not_assessed()
    assert {id_ for id_, reason in said.items() if reason == "silent"} == {
        id_ for id_ in silent if said[id_] not in ("not_onboarded", "excluded")
    }
    hidden = {id_ for id_, kbs in fleet.missing().items() if kbs != fleet.lacking()[id_]}
    assert hidden
    assert hidden <= set(said)
    for id_, moment in moments.items():
        listed = fleet.machine(id_)["lastSeen"]
        assert (listed is None) == (moment is None)
        assert moment is None or str(listed)[:19] == f"{moment:%Y-%m-%dT%H:%M:%S}"
    fleet.change(fleet.onboarded()[0], lastSeen="2025-01-01T00:00:00.1234567Z")
    assert fleet.not_assessed()[fleet.onboarded()[0]] == "silent"
    fleet.change(fleet.onboarded()[0], lastSeen=None)
    assert fleet.onboarded()[0] not in fleet.not_assessed()


def test_a_machine_that_reports_again_is_known_again_and_catches_up() -> None:
    fleet = Fleet(60, seed=1, night=10, silent=0)
    ids = [id_ for id_, kbs in fleet.missing().items() if kbs and id_ not in fleet.not_assessed()]
    fleet.silence(*ids)
    fleet.pass_days(40)
    ids = [id_ for id_ in ids if id_ in fleet.onboarded()]
    assert not any(fleet.missing()[id_] for id_ in ids)
    before = fleet.lacking()
    past = {id_: kbs for id_, kbs in fleet.lacking(45).items() if id_ in ids}
    fleet.report(*ids)
    assert ids
    assert all(fleet.missing()[id_] == fleet.lacking()[id_] for id_ in ids)
    assert sum(len(fleet.lacking()[id_]) for id_ in ids) < sum(len(before[id_]) for id_ in ids)
    assert not any(reason == "silent" for reason in fleet.not_assessed().values())
    assert not any(fleet.missing(45)[id_] for id_ in ids)
    assert {id_: kbs for id_, kbs in fleet.lacking(45).items() if id_ in ids} == past, "the past is another"
    fleet.pass_days(200)
    assert not {id_ for id_ in ids if fleet.not_assessed().get(id_) == "silent"}


def test_nothing_is_known_of_an_excluded_machine() -> None:
    fleet = Fleet(60, seed=1, night=10)
    id_ = someone(fleet)
    fleet.pass_days()
    fleet.exclude(id_)
    assert fleet.machine(id_)["isExcluded"] is True
    assert fleet.machine(id_)["exclusionReason"]
    assert (fleet.missing_kbs(id_), fleet.missing()[id_]) == ([], frozenset())
    assert fleet.lacking()[id_]
    assert fleet.not_assessed()[id_] == "excluded"
    assert id_ not in fleet.not_assessed(10)
    fleet.include(id_)
    assert fleet.missing_kbs(id_)


def test_what_is_excluded_or_silent_counts_in_no_update() -> None:
    fleet = Fleet(60, seed=1, night=10, silent=0)
    id_ = someone(fleet)
    kb_id = next(iter(fleet.missing()[id_]))
    before = fleet.missed_on()[kb_id]
    fleet.exclude(id_)
    assert fleet.missed_on()[kb_id] == before - 1


def test_software_without_events_is_forgotten_and_the_rest_is_not() -> None:
    fleet = Fleet(300, seed=1, night=20, excluded=0, silent=0)
    id_, products = next(
        (id_, {fleet.products(kb)[0] for kb in kbs})
        for id_, kbs in fleet.missing().items()
        if len({fleet.products(kb)[0] for kb in kbs}) > 1
    )
    product = min(products)
    fleet.forget_software(id_, product)
    assert {fleet.products(kb)[0] for kb in fleet.missing()[id_]} == products - {product}
    assert {row["id"] for row in fleet.missing_kbs(id_)} == fleet.missing()[id_]
    assert {fleet.products(kb)[0] for kb in fleet.lacking()[id_]} == products
    assert id_ not in fleet.not_assessed()


def test_what_a_machine_lacks_is_true_also_where_it_is_not_listed() -> None:
    fleet = Fleet(60, seed=1, night=10, silent=0)
    hidden, silent, gone = [id_ for id_, kbs in fleet.missing().items() if kbs][:3]
    fleet.hide([hidden])
    fleet.silence(silent)
    fleet.remove(gone)
    assert hidden not in fleet.missing()
    assert fleet.lacking()[hidden]
    assert gone not in fleet.lacking()
    fleet.pass_days(180)
    assert silent not in fleet.listed()
    assert fleet.lacking()[silent]


def test_everybody_listed_is_assessed_or_has_a_reason() -> None:
    fleet = Fleet(300, seed=1, night=60)
    assert set(fleet.assessed()).isdisjoint(fleet.not_assessed())
    assert set(fleet.assessed()) | set(fleet.not_assessed()) == set(fleet.listed())
    assert all(fleet.missing()[id_] == fleet.lacking()[id_] for id_ in fleet.assessed())
    assert list(fleet.assessed()) == sorted(fleet.assessed(), key=fleet.listed().index)


def test_how_many_are_excluded_and_silent_can_be_chosen() -> None:
    def reasons(excluded: float = 0.025, silent: float = 0.03) -> set[str]:
        fleet = Fleet(300, seed=1, night=30, discovered=0, excluded=excluded, silent=silent)
        return set(fleet.not_assessed().values())

    assert reasons() == {"excluded", "silent"}
    assert reasons(excluded=0) == {"silent"}
    assert reasons(excluded=0.5, silent=1) == {"excluded", "silent"}
    assert "silent" not in set(Fleet(300, seed=1, silent=0).not_assessed().values())


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

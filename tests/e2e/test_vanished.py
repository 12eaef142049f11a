"""What vanishes is not gone: lists that shrink, fail or move, nights of empty lists, files that stay empty, silence.

Through the real command line and a socket; what a reader of the tables concludes is held against the fleet.
"""

from __future__ import annotations

import pytest

from mde_simulator import ExportShape, Fault, Fleet
from tests.support import reader
from tests.support.contract import plain
from tests.support.nights import StartNights, nights
from tests.support.singer import Target

__all__ = ["nights"]

KBS, LIST = "/api/machines/*/getmissingkbs", "/api/machines"
BY_FILE = {"missing_kbs_source": "export"}


# The list


def test_half_the_list_vanishes_and_everything_is_still_there(nights: StartNights) -> None:
    """A device group is taken away: the tables say that it was not believed; the second night it is."""
    night = nights(plain(40))
    night.run()
    before, listing = night.missing_now(), night.sweep["listing"]
    hidden = night.fleet.listed()[::2]
    night.fleet.hide(hidden)
    night.time_passes()
    messages = night.run(status=0)
    assert "nothing is deleted" in messages.stderr
    assert night.missing_now() == before
    assert night.sweep["listing"] == listing
    assert night.sweep["is_believed"] is False
    assert night.sweep["verdict"]
    night.time_passes()
    night.run()
    night.assert_true()


def test_a_group_that_is_back_the_next_night_was_never_gone(nights: StartNights) -> None:
    """And what happened meanwhile is caught up with."""
    night = nights(plain(40))
    night.run()
    before = night.missing_now()
    hidden = night.fleet.listed()[::2]
    night.fleet.hide(hidden)
    night.time_passes()
    night.run()
    night.fleet.show(hidden)
    night.time_passes(nights=1)
    night.run()
    night.assert_true()
    assert before & night.true_pairs() <= night.missing_now()


@pytest.mark.parametrize(
    ("fault", "source"), [("503", "per_machine"), ("not_a_list", "per_machine"), ("html", "export")]
)
def test_a_list_that_fails_on_its_second_page_takes_nobody_away(nights: StartNights, fault: str, source: str) -> None:
    night = nights(plain(60), {"missing_kbs_source": source}, page_size=25)
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault(fault, path=LIST, after=1))
    night.time_passes()
    night.run(status=1)
    assert night.missing_now() == before
    night.simulator.faults.clear()
    night.simulator.exports.generate()
    night.time_passes(nights=5)
    night.run()
    night.simulator.exports.generate()
    if source == "per_machine":
        night.assert_true()


LISTS = {
    "100, 90, 3: held back again": ([90, 3], [100, 100]),
    "100, 90, 3, 3: the second in a row at that level": ([90, 3, 3], [100, 100, 3]),
    "100, 90, 89": ([90, 89], [100, 89]),
    "100, 90, 97: whole enough": ([90, 97], [100, 97]),
    "100, 90, 100": ([90, 100], [100, 100]),
    "100, 3, 90: much more than the first short one": ([3, 90], [100, 100]),
    "100, 90, 0, 90, 90: nothing ends a row": ([90, 0, 90, 90], [100, 100, 100, 90]),
    "100, 0, 0, 0: nothing is never believed": ([0, 0, 0], [100, 100, 100]),
    "100, 0, 3: nor does it make three believable": ([0, 3], [100, 100]),
    "100, 96, 92, 88: slowly": ([96, 92, 88], [96, 92, 88]),
}


@pytest.mark.parametrize("case", LISTS)
def test_which_list_is_believed(nights: StartNights, case: str) -> None:
    """What a reader takes for present after each night."""
    counts, believed = LISTS[case]
    night = nights(plain(100))
    night.run()
    ids = night.fleet.listed()
    pairs = night.true_pairs()
    for count, expected in zip(counts, believed, strict=True):
        night.fleet.show(ids)
        night.fleet.hide(ids[count:])
        night.time_passes()
        night.run(status=0 if count else 1)
        assert len(reader.present(night.target)) == len(reader.present(night.kept)) == expected
        gone = {machine_id for machine_id in ids if machine_id not in reader.present(night.target)}
        assert night.missing_now() == {pair for pair in pairs if pair[0] not in gone}


@pytest.mark.parametrize("joins", [0, 3])
def test_a_list_in_another_order_for_each_page_loses_nobody(nights: StartNights, joins: int) -> None:
    """As many machines join as slip through: the count alone would say that all is well."""
    night = nights(plain(120), page_size=40)
    night.run()
    there = set(night.fleet.listed())
    night.simulator.faults.add(Fault("moving", size=joins, times=4))
    night.time_passes()
    night.run()
    assert there <= reader.present(night.target)
    assert there <= set(night.outcomes)
    night.simulator.faults.clear()
    night.time_passes()
    night.run()
    night.assert_true()


def test_a_machine_listed_twice_is_onboarded_if_either_says_so(nights: StartNights) -> None:
    night = nights(plain(30))
    night.simulator.faults.add(Fault("two_statuses"))
    night.run()
    night.assert_true()


# The answers


def test_a_night_of_empty_lists_for_everybody_closes_nothing(nights: StartNights) -> None:
    night = nights(plain(40))
    night.run()
    before = night.missing_now()
    assert before
    night.simulator.faults.add(Fault("empty"))
    night.time_passes()
    night.run(status=0)
    assert night.missing_now() == before
    assert night.sweep["is_believed"] is False
    assert night.sweep["missing_pairs"] == 0
    night.simulator.faults.clear()
    night.time_passes(nights=1)
    night.run()
    night.assert_true()


def test_everything_installed_in_a_night_is_believed_the_second_time(nights: StartNights) -> None:
    """It may be true."""
    night = nights(plain(40))
    night.run()
    before = night.missing_now()
    for machine_id, kbs in night.fleet.missing().items():
        for kb in kbs:
            night.fleet.install(machine_id, kb)
    night.time_passes()
    night.run()
    assert night.missing_now() == before
    night.time_passes()
    night.run()
    night.assert_true()


def test_empty_lists_for_most_and_the_rest_right(nights: StartNights) -> None:
    """Three of four machines: still more than half of the pairs."""
    night = nights(plain(40))
    night.run()
    before = night.missing_now()
    ids = night.fleet.assessed()
    night.simulator.faults.add(*(Fault("empty", machine=id_) for n, id_ in enumerate(ids) if n % 4))
    night.time_passes()
    night.run()
    assert night.missing_now() == before
    assert night.sweep["is_believed"] is False


def test_empty_lists_in_a_sweep_that_is_killed_on_the_way_close_nothing(nights: StartNights) -> None:
    """The sweep is broken off and gone on with: it is judged as one."""
    night = nights(plain(40))
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault("503", path=KBS, after=20), Fault("empty"))
    night.time_passes()
    night.run(status=1)
    night.simulator.faults.clear()
    night.simulator.faults.add(Fault("empty"))
    night.run(status=0)
    assert night.sweep["is_believed"] is False
    assert night.missing_now() == before


def test_everybody_answers_404_for_a_night(nights: StartNights) -> None:
    """Exit status 1, and nothing is gone; the next night all is as it was."""
    night = nights(plain(30))
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault("not_found", path=KBS))
    night.time_passes()
    night.run(status=1)
    assert night.missing_now() == before
    night.simulator.faults.clear()
    night.time_passes(nights=3)
    night.run()
    night.assert_true()


@pytest.mark.parametrize("share", [3, 10])
def test_some_answer_404_for_a_night_and_lose_nothing_when_they_are_back(nights: StartNights, share: int) -> None:
    night = nights(plain(60))
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(*(Fault("not_found", machine=id_) for id_ in night.fleet.assessed()[::share]))
    night.time_passes()
    messages = night.run(status=0)
    assert night.sweep["is_believed"] is False
    assert not messages.of("ACTIVATE_VERSION", "missing_kbs")
    assert night.missing_now() == before
    night.simulator.faults.clear()
    night.time_passes()
    night.run()
    night.assert_true()


def test_ever_fewer_updates_night_after_night_are_believed_when_they_stay(nights: StartNights) -> None:
    """Empty lists for half of the machines, then for all: the second is no confirmation of the first."""
    night = nights(plain(60))
    night.run()
    before = night.missing_now()
    missing = night.fleet.missing()
    ids = sorted(night.fleet.assessed(), key=lambda id_: len(missing[id_]), reverse=True)
    half = next(place for place in range(60) if sum(len(missing[id_]) for id_ in ids[:place]) > len(before) / 2)
    assert sum(len(missing[id_]) for id_ in ids[half:]) > 20
    night.simulator.faults.add(*(Fault("empty", machine=id_) for id_ in ids[:half]))
    night.time_passes()
    night.run()
    assert night.missing_now() == before
    night.simulator.faults.add(Fault("empty"))
    night.time_passes()
    night.run()
    assert night.missing_now() == before
    night.time_passes()
    night.run()
    assert night.missing_now() == set(), "the second night in a row at that level"


def test_fewer_answers_night_after_night_are_believed_when_they_stay(nights: StartNights) -> None:
    """A fifth of the machines answers 404, then half: held back again, since the first was no confirmation."""
    night = nights(plain(40))
    night.run()
    before = night.missing_now()
    ids = night.fleet.assessed()
    for gone in (8, 20):
        night.simulator.faults.clear()
        night.simulator.faults.add(*(Fault("not_found", machine=id_) for id_ in ids[:gone]))
        night.time_passes()
        messages = night.run()
        assert night.sweep["is_believed"] is False
        assert not messages.of("ACTIVATE_VERSION", "missing_kbs")
        assert night.missing_now() == before
    night.time_passes()
    assert night.run().of("ACTIVATE_VERSION", "missing_kbs")


@pytest.mark.parametrize("lag", [1, 2, 5, 15])
def test_an_unbelieved_sweep_is_not_judged_a_second_time(nights: StartNights, lag: int) -> None:
    """The target passes on a STATE from before its end: the next run ends the same sweep, and does not confirm it."""
    night = nights(plain(40))
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault("empty"))
    night.time_passes()
    messages = night.run(patience=night.eager)
    night.target.state = messages.of("STATE")[-1 - lag]["value"]
    night.run()
    assert len(night.target.rows["sweeps"]) == 2
    assert night.missing_now() == before
    night.simulator.faults.clear()
    night.time_passes()
    night.run()
    night.assert_true()


# Silent, excluded, offboarded


def test_the_silent_and_the_excluded_are_not_taken_for_patched(nights: StartNights) -> None:
    """Their snapshot is dropped: they are skipped, with the reason, and nobody has installed anything."""
    night = nights(plain(40))
    night.run()
    ids = [id_ for id_ in night.fleet.assessed() if night.fleet.missing()[id_]]
    silent, excluded = ids[:5], ids[5:8]
    night.fleet.silence(*silent)
    night.fleet.exclude(*excluded)
    for _ in range(4):
        night.time_passes(days=9, nights=9)
        night.run()
        night.assert_true()
    assert {night.outcomes[id_] for id_ in (*silent, *excluded)} == {"skipped"}
    assert {night.reasons[id_] for id_ in silent} == {"silent"}
    assert {night.reasons[id_] for id_ in excluded} == {"excluded"}
    assert not {*silent, *excluded} & set(night.asked)
    emptied = [
        check
        for check in reader.rows(night.target, "missing_kbs_checks")
        if check["machine_id"] in {*silent, *excluded} and check["missing_kbs"] == 0
    ]
    assert emptied == []
    night.fleet.report(*silent)
    night.fleet.include(*excluded)
    night.time_passes(nights=1)
    night.run()
    night.assert_true()


def test_half_the_fleet_falls_silent_at_once(nights: StartNights) -> None:
    """A proxy changed: they stay listed, and are skipped; the rest is right every night."""
    night = nights(plain(40))
    night.run()
    night.fleet.silence(*night.fleet.assessed()[::2])
    for _ in range(4):
        night.time_passes(days=16, nights=16)
        night.run()
    night.assert_true()


def test_everybody_is_silent(nights: StartNights) -> None:
    """Nobody reports for 40 days: measured by the newest report, nobody is; nothing is taken for installed."""
    night = nights(plain(12))
    night.run()
    before = night.missing_now()
    night.fleet.silence(*night.fleet.listed())
    night.time_passes(days=40, nights=40)
    night.run()
    assert night.missing_now() == before


@pytest.mark.parametrize("stays", [True, False])
def test_offboarded_machines_that_stay_in_the_list(nights: StartNights, *, stays: bool) -> None:
    """Not in "missing now", whether the target deletes or not; nobody says that they are patched."""
    night = nights(plain(40))
    night.run()
    gone = night.fleet.assessed()[:6]
    for machine_id in gone:
        if stays:
            night.fleet.change(machine_id, onboardingStatus="CanBeOnboarded")
    if not stays:
        night.fleet.remove(*gone)
    for _ in range(2):
        night.time_passes(nights=1)
        night.run()
    assert not {pair for pair in night.missing_now() if pair[0] in gone}
    night.assert_true()


def test_everybody_excluded_at_once(nights: StartNights) -> None:
    """Nobody is asked, and nobody is patched."""
    night = nights(plain(30))
    night.run()
    ids = night.fleet.listed()
    night.fleet.exclude(*ids)
    night.time_passes()
    night.run()
    assert night.missing_now() == set()
    assert set(night.outcomes.values()) == {"skipped"}
    assert night.asked == []
    night.fleet.include(*ids)
    night.time_passes(nights=1)
    night.run()
    night.assert_true()


def test_settings_ask_the_excluded_and_the_silent_all_the_same(nights: StartNights) -> None:
    """Who asks everybody is answered, and believes what is said."""
    night = nights(Fleet(40, seed=3, excluded=0.2, silent=0.2), {"include_excluded": True, "silent_after_days": 0})
    night.run()
    assert set(night.asked) == set(night.fleet.onboarded())
    assert set(night.reasons.values()) <= {"not_onboarded"}


# Exports


def test_an_export_with_one_file_empty_for_good_is_not_believed_the_first_time(nights: StartNights) -> None:
    """Whatever else is missing because of it: the file alone is reason enough."""
    night = nights(plain(60), {**BY_FILE, "max_shrink_percent": 100}, export_shape=ExportShape(files=4))
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault("export_nothing", path="*/part-00001-*"))
    night.simulator.exports.generate()
    night.time_passes()
    night.run()
    assert night.missing_now() == before
    verdicts = [night.sweep["is_believed"]]
    night.simulator.exports.generate()
    night.time_passes()
    night.run()
    verdicts.append(night.sweep["is_believed"])
    assert verdicts == [False, True]
    night.simulator.faults.clear()
    night.simulator.exports.generate()
    night.time_passes()
    night.run()
    assert night.missing_now() == before


def test_an_export_whose_other_file_is_empty_the_next_time(nights: StartNights) -> None:
    """Two exports in a row with an empty file, but not the same: as many, so it is believed; healed by the third."""
    night = nights(plain(60), BY_FILE, export_shape=ExportShape(files=4))
    night.run()
    before = night.missing_now()
    for number in (1, 2):
        night.simulator.faults.clear()
        night.simulator.faults.add(Fault("export_nothing", path=f"*/part-0000{number}-*"))
        night.simulator.exports.generate()
        night.time_passes()
        night.run()
        if number == 1:
            assert night.missing_now() == before
    night.simulator.faults.clear()
    night.simulator.exports.generate()
    night.time_passes()
    night.run()
    assert night.missing_now() == before


def test_an_export_without_files_is_exit_status_1(nights: StartNights) -> None:
    night = nights(plain(40), BY_FILE)
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault("export_no_files"))
    night.simulator.exports.generate()
    night.time_passes()
    night.run(status=1)
    assert night.missing_now() == before


def test_the_silent_and_the_excluded_of_an_export_are_skipped_too(nights: StartNights) -> None:
    night = nights(plain(40), BY_FILE)
    night.run()
    ids = [id_ for id_ in night.fleet.assessed() if night.fleet.missing()[id_]]
    night.fleet.silence(*ids[:4])
    night.fleet.exclude(*ids[4:7])
    for _ in range(3):
        night.time_passes(days=12, nights=12)
        night.simulator.exports.generate()
        night.run()
    assert {night.outcomes[id_] for id_ in ids[:7]} == {"skipped"}
    assert {night.reasons[id_] for id_ in ids[:4]} == {"silent"}
    assert night.missing_now() == night.true_pairs()


def test_a_machine_that_leaves_between_two_exports_has_left(nights: StartNights) -> None:
    """No export is due: the believed list goes into the last sweep's row."""
    night = nights(plain(60), BY_FILE)
    night.run()
    gone = next(machine_id for machine_id, _ in sorted(night.missing_now()))
    night.fleet.remove(gone)
    night.time_passes()
    night.run(status=0)
    assert len(night.target.rows["sweeps"]) == 1
    assert reader.present(night.target) == reader.present(night.kept) == set(night.fleet.listed())
    assert gone not in {machine_id for machine_id, _ in night.missing_now()}


def test_a_list_that_shrinks_between_two_exports_is_held_back_too(nights: StartNights) -> None:
    """And believed the second time, with no export in between."""
    night = nights(plain(60), BY_FILE)
    night.run()
    before, ids = night.missing_now(), night.fleet.listed()
    night.fleet.hide(ids[40:])
    night.time_passes()
    night.run(status=0)
    assert night.missing_now() == before
    night.time_passes()
    night.run(status=0)
    assert night.missing_now() == {pair for pair in before if pair[0] in ids[:40]}


# A target that is killed


def test_whatever_part_of_a_night_arrives_nothing_that_is_missing_is_gone(nights: StartNights) -> None:
    """The target dies after any message of the second night: what was missing and is still is in "missing now"."""
    night = nights(plain(20))
    first = night.run()
    before = night.missing_now()
    night.time_passes(nights=20)
    night.fleet.remove(night.fleet.listed()[3])
    second = night.run()
    safe = before & night.true_pairs()
    night.assert_true()
    told = second.all
    for end in range(0, len(told), 3):
        target = Target()
        target.take([*first.all, *told[:end]])
        found = reader.missing_now(target)
        assert safe <= found, end

"""What is believed: a machine list, and what is absent from a sweep. Pure rules, no calls and no time.

Absence is not evidence: fewer machines, fewer answers or fewer missing updates than last time are not taken for gone
at once. A second time in a row at about the same level is believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tap_mde_kbs.state import MOST_NAMED

if TYPE_CHECKING:
    from tap_mde_kbs.state import SweepBookmark


class Tolerance(NamedTuple):
    """How much less than before is believed at once.

    Attributes:
        percent: So many per cent less,
        few: and so many less, however few there were.
    """

    percent: float
    few: int = 1

    def is_lower(self, count: int | None, than: int | None) -> bool:
        """Whether a count is lower than another by more than that."""
        if count is None or than is None:
            return False
        gone = than - count
        return gone > self.few and gone * 100 > self.percent * than


MISSING_PAIRS = Tolerance(percent=50, few=20)
"""How many updates fewer may be missing: people patch a fleet in a night, but seldom half of all there is."""

UNBELIEVED = "?"
"""What ends the scope of a sweep that ran over a machine list that was not believed."""


class Verdict(NamedTuple):
    """How a finished sweep ended.

    Attributes:
        is_believed: What is absent from the sweep is gone.
        activate: Rows of earlier versions may be deleted.
        reason: Why, or why not: a sentence.
        fault: Why the run's exit status is to be 1: a sentence; empty if it is 0.
    """

    is_believed: bool
    activate: bool
    reason: str
    fault: str


class Level(NamedTuple):
    """A count, judged against the one that was last believed.

    Attributes:
        is_believed: It is no lower than may be, or the second in a row at about that level.
        short: The count, if it is lower than may be; else None.
    """

    is_believed: bool
    short: int | None


def believe(count: int, last: int | None, short: int | None, tolerance: Tolerance, *, both_ways: bool = True) -> Level:
    """Judge a count: may what is missing from it be taken for gone?

    Args:
        count: How many there are now.
        last: How many there were when last believed; None before any.
        short: How many there were last time, if that was too few.
        tolerance: How many less are believed at once.
        both_ways: A second low count is believed only if it is not much higher than the first either: who knows what
            is missing then.
    """
    if not tolerance.is_lower(count, last):
        return Level(is_believed=True, short=None)
    is_second = short is not None and not tolerance.is_lower(count, short)
    if both_ways and tolerance.is_lower(short, count):
        is_second = False
    return Level(is_believed=is_second, short=count)


def believe_list(count: int, last: int | None, short: int | None, max_shrink_percent: float) -> Level:
    """Judge how many machines were listed; none at all is never believed, is no level, and ends a row of short ones."""
    if not count:
        return Level(is_believed=False, short=None)
    return believe(count, last, short, Tolerance(max_shrink_percent))


def judge(bookmark: SweepBookmark, *, max_shrink_percent: float) -> Verdict:
    """Judge a sweep in which every machine has an outcome, and note in its bookmark what came of it.

    What is absent from it is judged once: one whose failed machines were asked again since is as believed as it was.

    Args:
        bookmark: The sweep's.
        max_shrink_percent: How many per cent fewer answers than last time are believed at once.
    """
    counts, is_healed = bookmark.counts, bookmark.counts.is_believed is not None
    if not is_healed:
        doubt = _doubt(bookmark, max_shrink_percent)
    else:
        doubt = "" if counts.is_believed else counts.verdict or "It was not believed before."
    if not doubt:
        bookmark.answered_last, bookmark.answered_short = counts.answered + counts.skipped, None
        bookmark.pairs_last, bookmark.pairs_short = None if counts.is_partial else counts.pairs, None
    hindrance = doubt or _hindrance(bookmark)
    bookmark.complete = is_healed or bool(doubt) or not bookmark.newly_failed or counts.unnamed > 0
    counts.is_believed = not doubt
    counts.verdict = hindrance or (
        f"Every machine has an outcome, but for {counts.failed} that gave no answer before either."
        if counts.failed
        else "Every machine has an outcome."
    )
    return Verdict(is_believed=not doubt, activate=not hindrance, reason=counts.verdict, fault=_fault(bookmark))


def _doubt(bookmark: SweepBookmark, max_shrink_percent: float) -> str:
    """Why what is absent from the sweep is not taken for gone; empty if it is. Notes the levels."""
    counts = bookmark.counts
    if counts.asked and not counts.answered:
        bookmark.answered_short = bookmark.pairs_short = None  # it ends a row of short ones
        return "No machine answered."
    machines = counts.answered + counts.skipped
    answered = believe(machines, bookmark.answered_last, bookmark.answered_short, Tolerance(max_shrink_percent))
    pairs = Level(is_believed=True, short=None)
    if not counts.is_partial:
        pairs = believe(counts.pairs, bookmark.pairs_last, bookmark.pairs_short, MISSING_PAIRS, both_ways=False)
    bookmark.answered_short, bookmark.pairs_short = answered.short, pairs.short
    again = "that is believed if the next sweep ends so too."
    if not answered.is_believed:
        return f"Only {machines} machines answered or were skipped, {bookmark.answered_last} before: {again}"
    if not pairs.is_believed:
        return f"Only {counts.pairs} updates are missing, {bookmark.pairs_last} were before: {again}"
    if counts.empty_files > (counts.empty_files_before or 0):
        return (
            f"{counts.empty_files} files of the export are empty, {counts.empty_files_before or 0} were before: "
            "that is believed if the next export has as many."
        )
    return ""


def _hindrance(bookmark: SweepBookmark) -> str:
    """Why nothing is deleted after a sweep that is believed; empty if nothing hinders."""
    counts = bookmark.counts
    if not counts.answered:
        return "No machine was to be asked."
    if counts.unnamed:
        return f"{counts.failed} machines gave no answer, more than STATE can name ({MOST_NAMED})."
    if new := bookmark.newly_failed:
        return f"{len(new)} machines gave no answer that had not failed before: they are asked again first next time."
    if bookmark.scope.endswith(UNBELIEVED):
        return "The list of machines was too short to be believed while it ran."
    return ""


def _fault(bookmark: SweepBookmark) -> str:
    """Why the run's exit status is to be 1; empty if it is 0."""
    counts, new = bookmark.counts, len(bookmark.newly_failed)
    if counts.asked and not counts.answered and (bookmark.answered_last or counts.failed):
        return f"None of the {counts.asked} machines asked answered."
    if counts.unnamed:
        return f"{counts.failed} machines gave no answer, more than STATE can name ({MOST_NAMED})."
    if new > max(1, counts.asked / 100):
        return f"{new} machines gave no answer that had given one before, too many to go on."
    return ""

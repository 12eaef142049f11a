"""What is believed: a machine list, and the end of a sweep. Pure rules, no calls and no time.

Decisions, each for the reader of the table (no row is deleted on a guess):

- A sweep held back by failures is not counted as a short one, nor is it judged again once it was.
- A sweep held back by the machine list alone does count as a short one, if it was: otherwise a fleet that did shrink
  would need three sweeps instead of two.
- A sweep in which machines failed and none answered fails the run, even if all had failed before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tap_mde_kbs.state import SweepBookmark


class Verdict(NamedTuple):
    """How a finished sweep ended.

    Attributes:
        activate: Rows of earlier versions may be deleted.
        reason: Why, or why not: a sentence.
        fails: The run's exit status is to be 1.
        newly_failed: Machines that failed now and not in the sweep before.
        failed_again: Machines that failed in both.
    """

    activate: bool
    reason: str
    fails: bool
    newly_failed: tuple[str, ...]
    failed_again: tuple[str, ...]


def judge(bookmark: SweepBookmark, *, asked: int, list_believed: bool, max_shrink_percent: float) -> Verdict:
    """Judge a sweep in which every machine has an outcome, and note in its bookmark what came of it.

    Args:
        bookmark: The sweep's.
        asked: How many machines there were to ask.
        list_believed: Whether the machine list passed its own guard.
        max_shrink_percent: How many per cent fewer answers than last time are believed at once.
    """
    activate, reason = _may_activate(bookmark, list_believed=list_believed, max_shrink_percent=max_shrink_percent)
    if activate:
        bookmark.complete = True
        bookmark.answered_last = bookmark.answered
    new = bookmark.newly_failed
    return Verdict(
        activate=activate,
        reason=reason,
        fails=len(new) > max(1, asked / 100) or bool(bookmark.failed and not bookmark.answered),
        newly_failed=tuple(new),
        failed_again=tuple(other for other in bookmark.failed if other not in new),
    )


def believe(count: int, last: int | None, short_before: int, max_shrink_percent: float) -> tuple[bool, int]:
    """The shrink guard: may what is missing from a count be taken for gone?

    Args:
        count: How many there are now.
        last: How many there were when last believed; None before any.
        short_before: How many counts in a row, before this one, were not believed.
        max_shrink_percent: So many per cent less, or one less, is believed at once.

    Returns:
        Whether it is believed, and how many counts in a row, with this one, were not. A second one
        in a row that is too short is believed; none at all never is, and does not count.
    """
    if not count:
        return False, short_before
    if short_before or not _is_short(count, last, max_shrink_percent):
        return True, 0
    return False, 1


def _may_activate(bookmark: SweepBookmark, *, list_believed: bool, max_shrink_percent: float) -> tuple[bool, str]:
    """Whether rows of earlier versions may be deleted, and why. Counts short sweeps."""
    answered, last = bookmark.answered, bookmark.answered_last
    if not answered:
        return False, "No machine answered."
    if new := bookmark.newly_failed:
        return False, f"{len(new)} machines gave no answer that had not failed in the sweep before."
    if not list_believed:
        bookmark.short_sweeps = int(_is_short(answered, last, max_shrink_percent))
        return False, "The list of machines is not believed yet: it is too short."
    believed, bookmark.short_sweeps = believe(answered, last, bookmark.short_sweeps, max_shrink_percent)
    if not believed:
        return False, (
            f"Only {answered} machines answered, {last} did in the last complete sweep: "
            "that is believed if the next sweep ends so too."
        )
    if bookmark.failed:
        return True, (
            "Every machine has an outcome, but for "
            f"{len(bookmark.failed)} that gave no answer in the sweep before either."
        )
    return True, "Every machine has an outcome."


def _is_short(count: int, last: int | None, max_shrink_percent: float) -> bool:
    """Whether there are fewer than last time, by more than allowed and more than one."""
    gone = (last or 0) - count
    return gone > 1 and gone * 100 > max_shrink_percent * (last or 0)

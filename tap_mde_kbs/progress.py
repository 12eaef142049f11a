"""What the person at the terminal sees of a sweep. Log volume grows with time, not with machines."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from typing_extensions import Self

from tap_mde_kbs.errors import printable
from tap_mde_kbs.signals import signals_held
from tap_mde_kbs.sweep.sweep import KINDS

if TYPE_CHECKING:
    import logging

    from tap_mde_kbs.api.client import Client
    from tap_mde_kbs.sweep.pool import Answer
    from tap_mde_kbs.sweep.sweep import Outcome, Sweep
    from tap_mde_kbs.sweep.verdict import Verdict

SECONDS_BETWEEN_LINES = 10.0
BAR_WIDTH = 30
LONG_SWEEP_SECONDS = 8 * 3600.0
EXPORT_SECONDS_A_MACHINE = 0.003
"""As measured on two cores, with 275 records a machine: `python -m tests.benchmarks.export`."""

NAMED_MACHINES = 20
"""How many machines that failed are named in the log; STATE and the checks have all."""


class Progress:
    """Tells how a sweep goes on: before it, now and then, and at its end.

    A context manager: a thread of its own tells, since a run may wait for the quota longer than a person likes.
    """

    def __init__(self, client: Client, sweep: Sweep[Answer], log: logging.Logger, *, costs_calls: bool) -> None:
        """Take what there is to tell of, and whether each machine costs a call."""
        self._client = client
        self._sweep = sweep
        self._log = log
        self._total = sweep.left
        self._costs_calls = costs_calls
        self._kinds = dict.fromkeys(KINDS, 0)
        self._kbs = 0
        self._started = time.monotonic()
        self._calls_before = client.calls
        self._bar = sys.stderr.isatty()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_telling, name="progress", daemon=True)

    def __enter__(self) -> Self:
        """Begin to tell."""
        self._begin()
        with signals_held():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Tell no more."""
        self._over.set()
        self._thread.join()
        if self._bar:
            sys.stderr.write("\r\x1b[K")

    def _begin(self) -> None:
        doing = {
            "new": "Sweep {v} begins",
            "resumed": "Sweep {v} goes on",
            "healing": "Sweep {v}: machines that failed are asked again",
        }[self._sweep.mode].format(v=self._sweep.version)
        if not self._costs_calls:
            self._log.info("%s: %d machines, from the export.", doing, self._total)
            return
        seconds = self._seconds_left()
        self._log.info("%s: %d machines to ask, %s by the quota.", doing, self._total, duration(seconds))
        if advice := export_advice(self._total, seconds):
            self._log.info("Hint: %s.", advice)

    def count(self, outcome: Outcome[Answer]) -> None:
        """Take note of an outcome that was written."""
        self._kinds[outcome.kind] += 1
        self._kbs += len(outcome.answer.rows) if outcome.answer else 0
        if outcome.kind == "failed" and self._kinds["failed"] <= NAMED_MACHINES:
            self._log.warning("Machine %s gave no answer: %s", printable(outcome.machine_id, 80), outcome.reason)

    def end(self, activation: str, verdict: Verdict) -> None:
        """Sum up: what became of the machines, what it cost, and whether the target deletes.

        Args:
            activation: What was activated, or why nothing was: a sentence.
            verdict: The sweep's.
        """
        client = self._client
        kinds = ", ".join(
            f"{count} {kind.replace('_', ' ')}"
            for kind, count in self._kinds.items()
            if kind != "not_in_export" or not self._costs_calls
        )
        calls = f" {client.calls - self._calls_before} calls" if self._costs_calls else " Written"
        used = f" ({round(100 * client.governor.used())} % of the quota used)" if self._costs_calls else ""
        self._log.info(
            "Sweep %d: %s; %d missing KBs.%s in %s%s, %d retries, throttled %d times.",
            self._sweep.version,
            kinds,
            self._kbs,
            calls,
            duration(time.monotonic() - self._started),
            used,
            client.retries,
            client.throttled,
        )
        level = self._log.info if verdict.activate else self._log.warning
        level("%s", activation)

    def _keep_telling(self) -> None:
        while not self._over.wait(1.0 if self._bar else SECONDS_BETWEEN_LINES):
            self._tell()

    def _tell(self) -> None:
        done = self._total - self._sweep.left
        text = f"{done}/{self._total} machines, {self._kbs} KBs"
        if self._costs_calls:
            text += (
                f", {self._client.calls - self._calls_before} calls, {self._client.retries} retries, "
                f"{duration(self._seconds_left())} left"
            )
        if self._bar:
            filled = BAR_WIDTH * done // max(1, self._total)
            sys.stderr.write(f"\r\x1b[K[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {text}")
            sys.stderr.flush()
        else:
            self._log.info("%s", text)

    def _seconds_left(self) -> float:
        return self._client.governor.seconds_for(self._sweep.left)


def export_advice(machines: int, seconds: float, *, more: bool = False) -> str:
    """What to say of a long sweep; nothing, unless an export is the better way.

    Args:
        machines: How many there are to ask.
        seconds: How long that takes by the quota.
        more: Whether there are more machines than those.
    """
    if seconds <= LONG_SWEEP_SECONDS and not more:
        return ""
    return (
        f"a sweep of {machines}{' or more' if more else ''} machines takes {duration(seconds)} by the quota, "
        f"an export about {duration(export_seconds(machines))}: consider missing_kbs_source: export, "
        "which needs the permission Vulnerability.Read.All"
    )


def export_seconds(machines: int) -> float:
    """Estimate how long an export of so many machines takes, with all its rows."""
    return max(60.0, machines * EXPORT_SECONDS_A_MACHINE)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min, 6 h 10 min."""
    minutes = round(seconds / 60)
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{max(0, round(seconds))} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004 - an hour

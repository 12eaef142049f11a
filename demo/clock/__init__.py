"""Simulated time for a command, which thinks it is another day while its clock goes on as ever.

A demo of weeks, or a test of sixty nights, takes minutes: so the command is told the time. It is the
real one, unchanged; only the Python that runs it is moved at start-up, by `sitecustomize.py` here.
The wall clock alone is moved: waits and time limits go by the monotonic clock, and OpenSSL checks
certificates by the operating system's. What is signed with a date, such as a client assertion, or
compared with one from a server of today is out of step, so sign in with a secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

MOMENT = "DEMO_MOMENT"


def environment_at(moment: datetime, python_path: str = "") -> dict[str, str]:
    """The variables that make a Python start at a moment.

    Args:
        moment: With its time zone.
        python_path: The PYTHONPATH that it would have had; a `sitecustomize` of that one runs, too.

    Returns:
        To be put over the command's environment, and over no other's.

    Raises:
        ValueError: The moment has no time zone, and so could be several.
    """
    if moment.tzinfo is None:
        message = f"{moment} has no time zone."
        raise ValueError(message)
    here = str(Path(__file__).parent)
    return {"PYTHONPATH": f"{here}:{python_path}".removesuffix(":"), MOMENT: f"{moment.timestamp():f}"}

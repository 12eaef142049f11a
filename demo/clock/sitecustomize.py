"""Run by a Python as it starts, where this folder is on its path: `demo.clock` says what for."""

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

# It would import pytest where there is one, for a fixture: ten times the start-up that it takes without.
sys.modules["pytest"] = None  # type: ignore[assignment] # the import system takes None for "there is none"
import time_machine  # noqa: E402 - not before: it looks for pytest when it is imported

del sys.modules["pytest"]

time_machine.travel(float(os.environ["DEMO_MOMENT"]), tick=True).start()

# A Python has one `sitecustomize`: the next on the path, which this one hides, runs as well.
_elsewhere = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent.resolve()]
_hidden = importlib.machinery.PathFinder.find_spec("sitecustomize", _elsewhere)
if _hidden and _hidden.loader:
    _hidden.loader.exec_module(importlib.util.module_from_spec(_hidden))

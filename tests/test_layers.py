"""Imports go one way only, and the tap never needs its simulator."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "tap_mde_kbs"
LAYERS = [
    {"tap"},
    {"doctor"},
    {"streams"},
    {"export", "progress"},
    {"client", "sweep", "listing", "storage"},
    {"auth", "transport", "schemas", "pool", "vulnerabilities"},
    {"governor", "output", "bookmark"},
    {"settings"},
    {"errors"},
]
"""From top to bottom; a module imports only from layers below its own (what only types need is free)."""


def imports(path: Path) -> set[str]:
    """The modules of the package that a module imports when it runs."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tap_mde_kbs"):
            parts = node.module.split(".")[1:]
            found.update(parts[:1] or [alias.name for alias in node.names])
    return found


def test_imports_go_one_way() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set().union(*LAYERS)
    for number, layer in enumerate(LAYERS):
        below = set().union(*LAYERS[number + 1 :])
        for module in layer:
            assert imports(PACKAGE / f"{module}.py") <= below, module


def test_the_tap_does_not_import_its_simulator() -> None:
    for path in PACKAGE.glob("*.py"):
        assert "simulator" not in imports(path)


def test_the_simulator_does_not_import_the_tap() -> None:
    """A client that is tested against itself proves nothing."""
    for path in (PACKAGE / "simulator").glob("*.py"):
        assert imports(path) <= {"simulator"}, path.name

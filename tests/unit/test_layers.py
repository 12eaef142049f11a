"""Imports go one way only, between rooms and within them, and the tap never needs its simulator."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TAP = (
    "cli",
    "tap",
    "doctor streams",
    "runner advisories.reading",
    "advisories.fetch advisories.msrc advisories.kev advisories.epss",
    "export.source",
    "export.files export.pages export.loaded",
    "export.calls export.download export.records",
    "export.mending",
    "api.machines",
    "api.client",
    "api.auth",
    "api.session api.credentials",
    "api.http api.network",
    "api.governor",
    "progress",
    "sweep.machine_list",
    "sweep.sweep",
    "sweep.pool sweep.verdict",
    "catalogs messages",
    "schema state settings",
    "addresses",
    "given",
    "errors signals patience",
)
"""From top to bottom; a module imports only from layers below its own (what only types need is free)."""


def modules(package: str) -> set[str]:
    """The package's modules but for `__init__` and `__main__`, dotted, from the package on."""
    folder = ROOT / package
    paths = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py"))
    return {".".join(path.parts) for path in paths if not path.name.startswith("__")}


def imports(package: str, module: str) -> set[str]:
    """The modules of either package that a module imports when it runs, each with its package's name."""
    tree = ast.parse((ROOT / package / Path(*module.split("."))).with_suffix(".py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    known = {f"{each}.{name}" for each in ("tap_mde_kbs", "mde_simulator") for name in modules(each)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{module}: imports are absolute"
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found & known


def test_imports_go_one_way() -> None:
    layers = [{f"tap_mde_kbs.{module}" for module in layer.split()} for layer in TAP]
    assert {f"tap_mde_kbs.{module}" for module in modules("tap_mde_kbs")} == set().union(*layers)
    for number, layer in enumerate(layers):
        below = set().union(*layers[number + 1 :])
        for module in layer:
            assert imports("tap_mde_kbs", module.removeprefix("tap_mde_kbs.")) <= below, module


@pytest.mark.parametrize("package", ["tap_mde_kbs", "mde_simulator"])
def test_rooms_stand_in_no_circle(package: str) -> None:
    """A room is a sub-package, or a module beside them."""
    needs: dict[str, set[str]] = {}
    for module in modules(package):
        room = module.partition(".")[0]
        others = {name.split(".")[1] for name in imports(package, module)}
        needs.setdefault(room, set()).update(others - {room})
    while free := {room for room, others in needs.items() if not others & needs.keys()}:
        needs = {room: others for room, others in needs.items() if room not in free}
    assert not needs, "these need each other"


def test_the_tap_and_its_simulator_do_not_import_each_other() -> None:
    """A client that is tested against itself proves nothing."""
    for package in ("tap_mde_kbs", "mde_simulator"):
        for module in modules(package):
            assert all(name.startswith(package) for name in imports(package, module)), module

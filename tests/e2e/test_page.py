"""The page of any warehouse: of an empty one, of one whose names are made to do harm, and from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from demo import transform
from demo.marts import Marts
from demo.page import render
from demo.pipeline import Pipeline
from demo.postgres import postgres as throw_away_postgres
from mde_simulator import Fleet, Simulator
from tests.support.browser import DEMANDED, PHONE, BrowserError, browser
from tests.support.looks import look
from tests.support.page import Report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from demo.postgres import Postgres

NAMES = (
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "{{ 7 * 7 }} &amp; {% raw %}",
    "e" * 255,
    "\u202egnp.exe",
    " ",
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The warehouse of a tenant without machines, with its marts."""
    folder = tmp_path_factory.mktemp("empty")
    with throw_away_postgres() as database, Simulator(Fleet(0)) as simulator:
        Pipeline(folder, simulator.environment, database).run()
        transform.build(database, folder)
        yield database


@contextmanager
def filled(database: Postgres, **tables: list[dict[str, Any]]) -> Iterator[Marts]:
    """Its marts with rows, until the end of the block."""
    with psycopg.connect(database.url) as connection:
        for table, rows in tables.items():
            for row in rows:
                columns = ", ".join(row)
                values = ", ".join(f"%({column})s" for column in row)
                statement = f"INSERT INTO analytics.{table} ({columns}) VALUES ({values})"  # noqa: S608 - names of ours
                connection.execute(statement.encode(), row)
        yield Marts(connection)
        connection.rollback()


def test_an_empty_warehouse_has_a_page(empty: Postgres, tmp_path: Path) -> None:
    """It says that there is nothing, in each of its parts, and shows well."""
    path = tmp_path / "report.html"
    with filled(empty) as marts:
        path.write_text(render(marts), encoding="utf-8")
    assert "Nothing was loaded yet." in path.read_text(encoding="utf-8")
    report = Report.of(path)
    assert [report.values[name] for name in ("missing-pairs", "overdue-pairs", "gap-machines")] == ["0", "0", "0"]
    assert {row[0] for row in report.tables["ageing"].values()} == {"0"}
    with browser() as page:
        page.open(path)
        look(page, PHONE, dark=False)


def test_names_from_the_wire_are_only_ever_text(empty: Postgres, tmp_path: Path) -> None:
    """Markup, scripts as links, names without an end: all is shown as it is, and the page keeps its width."""
    path = tmp_path / "report.html"
    machine = {"is_active": True, "last_checked_at": "2026-01-05 02:00", "missing_kbs": 3, "overdue_kbs": 1}
    segment = {"machines": 3, "known_machines": 2, "patched_machines": 1, "patched_share": 0.5, "overdue_pairs": 1}
    with filled(
        empty,
        machine_compliance=[
            {"machine_id": name, "computer_dns_name": name, "rbac_group_name": name, "os_platform": name, **machine}
            for name in NAMES
        ],
        kbs_missing=[
            {"kb_id": name, "name": name, "url": f"javascript:alert({number})", "machines_missing": 2}
            for number, name in enumerate(NAMES)
        ],
        updates_to_install=[
            {"tenant": "mde", "machine_id": name, "kb_id": name, "closes_kbs": 1, "restart_required": name}
            for name in NAMES
        ],
        pair_deadlines=[
            {"tenant": "mde", "machine_id": name, "kb_id": name, "rule_book": name, "due_at": "2026-01-05"}
            for name in NAMES
        ],
        compliance_by_segment=[
            {"segment_kind": kind, "segment": name, **segment} for kind in ("group", "tag") for name in NAMES
        ],
        coverage_gaps=[
            {"machine_id": name, "computer_dns_name": name, "rbac_group_name": name, "reason": "failed"}
            for name in NAMES
        ],
    ) as marts:
        path.write_text(render(marts, tenant=NAMES[0]), encoding="utf-8")
    for table in ("behind", "what-to-install", "rule-books"):
        assert {*NAMES} == Report.of(path).tables[table].keys()
    assert "No document of MSRC's was read" in path.read_text(encoding="utf-8")
    with browser() as page:
        page.open(path)
        look(page, PHONE, dark=False)
        assert page.run("document.querySelectorAll('script, img, [onmouseover], a').length") == 0
        names = "[...document.querySelectorAll('#segments-tag .name')].map(name => name.textContent)"
        assert {*page.run(names)} == {*NAMES}
        assert {*page.requests} == {path.as_uri()}


def test_one_day_has_a_page(empty: Postgres, tmp_path: Path) -> None:
    """After the first night there is no line to draw yet."""
    path = tmp_path / "report.html"
    day = {"machines_asked": 3, "machines_answered": 2, "machines_with_nothing_missing": 1, "opened_pairs": 4}
    with filled(
        empty, compliance_by_day=[{"day": "2026-01-05", **day, "installed_pairs": 0, "open_pairs": 4}]
    ) as marts:
        path.write_text(render(marts), encoding="utf-8")
    assert Report.of(path).tables["days"] == {"2026-01-05": ["3", "2", "1", "4", "4", "0"]}
    with browser() as page:
        page.open(path, 1200)
        look(page, 1200, dark=False)


def test_the_command_finds_its_warehouse_by_url_or_by_the_environment(empty: Postgres, tmp_path: Path) -> None:
    """As `transform/profiles.yml` does; what is wrong is said in a line."""

    def run(*options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "demo.page", "--output", str(tmp_path / "report.html"), *options],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    place = {"PG_HOST": empty.host, "PG_PORT": str(empty.port), "PG_USER": empty.user, "PG_DATABASE": empty.database}
    ways: list[tuple[list[str], dict[str, str]]] = [(["--database-url", empty.url], {}), ([], place)]
    for options, environ in ways:
        done = run(*options, **environ)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
        assert Report.of(tmp_path / "report.html").values["missing-pairs"] == "0"
        (tmp_path / "report.html").unlink()
    wrong = [(["--schema", "elsewhere"], "No marts in the schema elsewhere"), (["--database-url", "x"], 'missing "="')]
    for wrong_options, said in wrong:
        done = run(*wrong_options, **place)
        assert done.returncode == 1
        assert done.stderr.startswith(said)
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


def test_without_a_browser_a_test_is_skipped_unless_one_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way it is said how to get one."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROME_BIN", raising=False)
    monkeypatch.delenv(DEMANDED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"), browser():
        pass
    monkeypatch.setenv(DEMANDED, "1")
    with pytest.raises(BrowserError, match="apt-get install chromium"), browser():
        pass

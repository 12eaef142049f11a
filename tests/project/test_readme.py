"""The README says what the code does."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.rows import dict_row

from demo.pipeline import Pipeline
from tests.support import readme
from tests.support.singer import TAP, lacking

if TYPE_CHECKING:
    from pathlib import Path

    from demo.postgres import Postgres
    from tests.conftest import StartSimulator


def test_settings_and_columns_are_those_of_the_code() -> None:
    """After a change of the code: `python -m tests.support.readme`."""
    text = readme.README.read_text()
    assert readme.rendered(text) == text


def test_every_column_is_explained() -> None:
    for _, _, schema in readme.STREAMS.values():
        assert all(prop["description"] for prop in schema["properties"].values())


def test_it_opens_with_the_two_commands() -> None:
    first_block = re.search(r"```bash\n(.*?)```", readme.README.read_text(), re.DOTALL)
    assert first_block
    commands = [line.partition("#")[0].strip() for line in first_block[1].splitlines()]
    assert commands == ["make demo", "make test"]


@pytest.mark.parametrize("command", ["tap-mde-kbs", "mde-simulator"])
def test_options_that_it_names_exist(command: str) -> None:
    text = readme.README.read_text()
    lines = [line for line in text.splitlines() if "az ad" not in line]
    calls = [call for line in lines for call in re.findall(rf"{command} (--[^|`&#]*)", line)]
    named = {option for call in calls for option in re.findall(r"--[a-z-]+", call)}
    if command == "mde-simulator":
        named |= {"--no-quota", "--fault", "--latency", "--token-life", "--day"}
    done = subprocess.run([str(TAP.parent / command), "--help"], capture_output=True, text=True, check=True)
    assert named - {"--interactive"} <= set(re.findall(r"--[a-z-]+", done.stdout))


def test_links_inside_the_repository_lead_somewhere() -> None:
    text = readme.README.read_text()
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif not link.startswith("https://"):
            assert (readme.README.parent / link).exists(), link


def test_what_is_missing_now_by_its_sql_is_the_truth(
    simulate: StartSimulator, postgres: Postgres, tmp_path: Path
) -> None:
    """The second night, with updates installed and machines gone, read out of PostgreSQL by the README's own query."""
    simulator = simulate(60)
    pipeline = Pipeline(tmp_path, simulator.environment, postgres)
    pipeline.run()
    simulator.fleet.pass_days(20)
    pipeline.run()
    found: dict[str, set[str]] = {}
    for row in _rows(postgres, readme.sql("missing now")):
        found.setdefault(row["machine_id"], set()).add(row["id"])
    assert {machine_id: frozenset(kbs) for machine_id, kbs in found.items()} == lacking(simulator.fleet.missing())


def _rows(postgres: Postgres, query: str) -> list[dict[str, Any]]:
    with psycopg.connect(postgres.url, options="-c search_path=mde", row_factory=dict_row) as connection:
        return connection.execute(query).fetchall()

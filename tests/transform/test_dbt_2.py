"""What can be had of dbt 2 without it: dbt 1.12 brings its schemas along, and says what it calls deprecated."""

from __future__ import annotations

import os
import shutil
import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import yaml
from dbt.cli.main import dbtRunner
from dbt.jsonschemas import jsonschemas
from packaging.specifiers import SpecifierSet

from tests.transform.warehouses import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

NOT_YET = {("models/marts/_semantics.yml", "type_params")}
"""How dbt up to 1.11 wants a metric; the schemas of dbt 2 know another way alone, which came with 1.12."""


def deprecated(project: Path, adapter: str, folder: Path) -> list[str]:
    """What dbt says against a project while it parses it, each with its kind.

    It compares YAML with dbt 2's schemas for adapters alone that dbt 2 has had for long; here for ours, too.
    """
    environment = {"DUCKDB_PATH": ":memory:", "DBT_TARGET_PATH": str(folder), "DBT_LOG_PATH": str(folder)}
    said: list[str] = []

    def listen(event: Any) -> None:
        if event.info.level in {"warn", "error"}:
            said.append(f"{event.info.name}: {event.info.msg}")

    arguments = ["parse", "--no-partial-parse", "--show-all-deprecations", f"--target={adapter}"]
    with (
        warnings.catch_warnings(),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(jsonschemas, "_JSONSCHEMA_SUPPORTED_ADAPTERS", {"duckdb", "postgres"}),
    ):
        warnings.simplefilter("ignore")  # dbt's and its dependencies' own
        done = dbtRunner(callbacks=[listen]).invoke(
            ["--quiet", "--no-use-colors", *arguments, f"--project-dir={project}", f"--profiles-dir={PROJECT}"]
        )
    assert done.success or said, done.exception
    return said


@pytest.mark.parametrize("adapter", ["duckdb", "postgres"])
def test_nothing_in_the_project_is_deprecated(adapter: str, tmp_path: Path) -> None:
    assert deprecated(PROJECT, adapter, tmp_path) == []


def test_what_is_deprecated_is_seen(tmp_path: Path) -> None:
    """A key that dbt 2 does not know, and a macro's argument of a type that none is."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("target", "logs"))
    for name, before, after in (
        ("macros/_macros.yml", "type: string,", "type: text,"),
        ("models/staging/_staging.yml", "- name: stg_machines\n", "- name: stg_machines\n    confg: {}\n"),
    ):
        text = (project / name).read_text()
        assert before in text
        (project / name).write_text(text.replace(before, after, 1))
    said = " ".join(deprecated(project, "duckdb", tmp_path / "target"))
    assert "Custom key `confg`" in said
    assert "Argument table in the yaml for macro every_tenant has an invalid type" in said


def test_the_schemas_of_dbt_2_accept_the_project() -> None:
    """Types as well, of which dbt 1.12 says nothing; but for metrics, which 1.10 and 1.11 are to read, too."""
    project = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())
    check = jsonschemas.CustomDraft7Validator
    assert [error.message for error in check(jsonschemas.project_schema()).iter_errors(project)] == []
    found = set()
    for path in sorted(each for folder in ("models", "macros", "seeds") for each in (PROJECT / folder).rglob("*.yml")):
        for error in check(jsonschemas.resources_schema()).iter_errors(yaml.safe_load(path.read_text())):
            found.add((str(path.relative_to(PROJECT)), error.message.partition("('")[2].partition("'")[0]))
    assert found == NOT_YET


def test_dbt_2_is_admitted_and_dbt_3_is_not() -> None:
    project = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())
    admitted = SpecifierSet(",".join(project["require-dbt-version"]))
    assert [version for version in ("1.10.4", "1.10.5", "1.12.6", "2.0.9", "3.0.0") if version in admitted] == [
        "1.10.5",
        "1.12.6",
        "2.0.9",
    ]

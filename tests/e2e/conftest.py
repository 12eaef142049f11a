"""Pipelines through the session's PostgreSQL, each into a schema of its own."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.e2e.pipeline import Pipeline
from tests.e2e.warehouse import Warehouse

if TYPE_CHECKING:
    from pathlib import Path

    from demo.postgres import Postgres
    from tap_mde_kbs.simulator import Simulator

SCHEMAS = (f"e2e_{number}" for number in itertools.count(1))

IMPATIENT = """
import time
sleep = time.sleep
time.sleep = lambda seconds: sleep(seconds / 10)
"""


class Connect(Protocol):
    """Makes a pipeline from a tenant to a warehouse."""

    def __call__(self, simulator: Simulator, **options: Any) -> tuple[Pipeline, Warehouse]:
        """The options are the Pipeline's."""


@pytest.fixture
def connect(postgres: Postgres, tmp_path: Path) -> Connect:
    """Pipelines to schemas that are empty."""

    def start(simulator: Simulator, **options: Any) -> tuple[Pipeline, Warehouse]:
        schema = next(SCHEMAS)
        folder = tmp_path / schema
        folder.mkdir()
        return Pipeline(folder, simulator, postgres, schema, **options), Warehouse(postgres, schema)

    return start


@pytest.fixture
def impatient(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a tap that sleeps a tenth as long before it tries again."""
    folder = tmp_path_factory.mktemp("impatient")
    (folder / "sitecustomize.py").write_text(IMPATIENT)
    return {"PYTHONPATH": str(folder)}

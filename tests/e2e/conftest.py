"""Pipelines through the session's PostgreSQL, each into a schema of its own; and a bucket."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.support.pipeline import Pipeline, postgres_loader
from tests.support.storage import Storage, serve
from tests.support.warehouse import PostgresWarehouse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from demo.postgres import Postgres
    from mde_simulator import Simulator

SCHEMAS = (f"e2e_{number}" for number in itertools.count(1))


class Connect(Protocol):
    """Makes a pipeline from a tenant to a warehouse."""

    def __call__(
        self, simulator: Simulator, target: Mapping[str, Any] | None = None, **options: Any
    ) -> tuple[Pipeline, PostgresWarehouse]:
        """The options are the Pipeline's, and `target`: settings of the target."""


@pytest.fixture
def connect(postgres: Postgres, tmp_path: Path) -> Connect:
    """Pipelines to schemas that are empty."""

    def start(
        simulator: Simulator, target: Mapping[str, Any] | None = None, **options: Any
    ) -> tuple[Pipeline, PostgresWarehouse]:
        schema = next(SCHEMAS)
        folder = tmp_path / schema
        folder.mkdir()
        prompt = options.get("patience") is not None  # the target is then as prompt as the tap
        loader = postgres_loader(postgres, schema, prompt=prompt, **(target or {}))
        return Pipeline(folder, simulator, loader, **options), PostgresWarehouse(postgres, schema)

    return start


@pytest.fixture
def storage(pytestconfig: pytest.Config, tmp_path: Path) -> Iterator[Storage]:
    """An empty bucket."""
    with serve(pytestconfig.cache.mkdir("environments"), tmp_path) as found:
        yield found

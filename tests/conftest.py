"""What every test starts from: a clean environment, simulators that were not misused, one PostgreSQL, targets."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import uuid
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from demo.postgres import Postgres
from demo.postgres import postgres as throw_away_postgres
from mde_simulator import Fleet, Simulator
from tests.support.browser import NONE_FOUND
from tests.support.environments import environment, loader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A busy machine is no defect.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# duckdb<1.3 has no wheel for 3.14, and fakesnow none for 3.10.
PYTHON = ">=3.11,<3.14"

NAMES_OF_USERS = ("TAP_MDE_KBS_", "TARGET_", "MELTANO_", "SINGER_SDK_", "AZURE_", "IDENTITY_", "PG")
TRUST = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY")


FIRST = (
    "e2e/test_sixty_nights",
    "e2e/test_meltano",
    "examples/test_dagster",
    "examples/test_meltano_tenants",
    "e2e/test_demo",
)
"""The longest: begun last, they would run for minutes beside idle workers."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests."""
    items.sort(key=lambda item: next((n for n, name in enumerate(FIRST) if name in item.nodeid), len(FIRST)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests did not look at their page, and what to install."""
    without = [
        report.nodeid.rpartition("/")[2]
        for report in terminalreporter.stats.get("skipped", ())
        if NONE_FOUND in str(report.longrepr)
    ]
    if without:
        text = f"{len(without)} tests were skipped where they need a browser: {', '.join(without)}. {NONE_FOUND}"
        terminalreporter.write_line(text, yellow=True)


@pytest.fixture(autouse=True)
def _clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's settings, proxies and authorities from every test."""
    for name in os.environ:
        if name in TRUST or (name.startswith(NAMES_OF_USERS) and name != "PG_BIN"):
            monkeypatch.delenv(name)


class StartSimulator(Protocol):
    """Starts a simulator that is stopped at the end of the test."""

    def __call__(self, fleet: Fleet | int = 40, **options: Any) -> Simulator:
        """Take a fleet, or how many machines; the options are the Simulator's."""


@pytest.fixture
def simulate() -> Iterator[StartSimulator]:
    """Simulated tenants; at the end of the test nobody may have broken the API's rules on one."""
    started: list[Simulator] = []
    with contextlib.ExitStack() as stack:

        def start(fleet: Fleet | int = 40, **options: Any) -> Simulator:
            whole = Fleet(machines=fleet, seed=1) if isinstance(fleet, int) else fleet
            started.append(stack.enter_context(Simulator(whole, **options)))
            return started[-1]

        yield start
        violations = [violation for simulator in started for violation in simulator.violations]
    assert violations == []


@pytest.fixture(scope="session")
def _server() -> Iterator[Postgres]:
    """A PostgreSQL for the session."""
    with throw_away_postgres() as server:
        yield server


@pytest.fixture
def postgres(_server: Postgres) -> Postgres:
    """An empty database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(_server.url, autocommit=True) as connection:  # CREATE DATABASE takes no transaction
        connection.execute(f"CREATE DATABASE {name}")
    return dataclasses.replace(_server, database=name)


class Programs(Protocol):
    """Finds the programs of an environment of their own."""

    def __call__(self, name: str, *besides: str) -> Path:
        """Take a loader of `meltano.yml`, and what else is needed; the folder of the programs."""


@pytest.fixture(scope="session")
def programs(pytestconfig: pytest.Config) -> Programs:
    """Environments of the loaders in `meltano.yml`, just as it says to install them; kept in pytest's cache."""
    folder = pytestconfig.cache.mkdir("environments")

    def find(name: str, *besides: str) -> Path:
        plugin = loader(name)
        return environment(folder, [*plugin["pip_url"].split(), *besides], plugin.get("python", PYTHON))

    return find

"""Twenty simulated tenants of one provider, of which one is broken, one throttled, and one has its tap killed once."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mde_simulator import Fault, Fleet
from tests.support.processes import processes
from tests.support.singer import UNLIMITED
from tests.support.warehouse import PostgresWarehouse, pairs, true_machines, true_missing_kbs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.postgres import Postgres
    from tests.conftest import StartSimulator

TENANTS = tuple(f"tenant_{number:02}" for number in range(1, 21))
KILLED, THROTTLED, BROKEN = "tenant_02", "tenant_07", "tenant_11"
SLOW = ("tenant_03", "tenant_04", "tenant_05", "tenant_06")
"""They would all be at work at the same time, if they were let."""
LATENCY = 2.0
FRESH = set(TENANTS) - {BROKEN}
REASON = "AADSTS7000215"
"""What Entra ID says of the broken one's secret."""
NOT_THE_SECRET = "not-the-secret"  # noqa: S105 - made up
TIMES_THROTTLED = 4
STUCK_SECONDS = 20.0
SECONDS = 900
"""A night that takes longer hangs: on two quiet cores it takes one minute, beside other tests five."""


class Provider:
    """The tenants, and what their provider knows of each."""

    def __init__(self, simulate: StartSimulator, postgres: Postgres, folder: Path) -> None:
        """Start them."""
        self.postgres = postgres
        self.folder = folder
        self.simulators = {
            name: simulate(
                Fleet(4 + number % 4, seed=number),
                faults=FAULTS.get(name, ()),
                latency=LATENCY if name in SLOW else 0.0,
            )
            for number, name in enumerate(TENANTS)
        }
        self._authorities = folder / "authorities.pem"
        self._authorities.write_text("".join(Path(each.ca_file).read_text() for each in self.simulators.values()))

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The provider's list."""
        return [
            {
                "name": name,
                "tenant_id": simulator.config["tenant_id"],
                "client_id": simulator.config["client_id"],
                "secret": f"{name.upper()}_SECRET",
                "settings": {**UNLIMITED, **{each: simulator.config[each] for each in ("api_url", "authority_url")}},
            }
            for name, simulator in self.simulators.items()
        ]

    @property
    def secrets(self) -> dict[str, str]:
        """The variables that the list names."""
        secrets = {each["secret"]: self.simulators[each["name"]].config["client_secret"] for each in self.listed}
        return secrets | {f"{BROKEN.upper()}_SECRET": NOT_THE_SECRET}

    @property
    def environ(self) -> dict[str, str]:
        """All that an engine finds in its environment: secrets, the warehouse, whom to trust, where to write."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "REQUESTS_CA_BUNDLE": str(self._authorities),
            "PG_HOST": self.postgres.host,
            "PG_PORT": str(self.postgres.port),
            "PG_USER": self.postgres.user,
            "PG_PASSWORD": "nobody asks for it",
            "PG_DATABASE": self.postgres.database,
            **self.secrets,
        }

    @contextmanager
    def one_tap_is_killed(self) -> Iterator[None]:
        """Kill that one's tap in the middle of its machines, once."""
        killed = threading.Event()
        over = threading.Event()

        def kill() -> None:
            while not over.is_set():
                asked = any(entry.machine_id for entry in self.simulators[KILLED].journal)
                if asked and (pid := self._tap_of(KILLED)):
                    os.kill(pid, signal.SIGKILL)
                    killed.set()
                    return
                time.sleep(0.05)

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert killed.is_set(), "nobody was killed"

    def _tap_of(self, name: str) -> int | None:
        """The tap that this test's engine has started for a tenant, which it or what started it names."""
        running = {each.pid: each for each in processes()}
        for each in running.values():
            if "bin/tap-mde-kbs " in each.command and str(self.folder) in each.command:
                parent = running.get(each.parent)
                if name in each.command or (parent and name in parent.command):
                    return each.pid
        return None

    def most_at_once(self) -> int:
        """How many tenants were being loaded at the same moment, but for the killed one, which pauses in between."""
        journals = [each.journal for name, each in self.simulators.items() if name != KILLED]
        times = [(journal[0].at, journal[-1].at + (journal[-1].seconds or 0)) for journal in journals]
        return max(sum(began <= moment < ended for began, ended in times) for moment, _ in times)

    def assert_it_was_a_bad_night(self) -> None:
        """One was throttled, and one was never let in; a killed tap is seen to by `one_tap_is_killed`."""
        assert [each.status for each in self.simulators[THROTTLED].journal].count(429) == TIMES_THROTTLED
        assert self.simulators[BROKEN].calls == 0

    def assert_nineteen_are_true(self, analytics: str) -> None:
        """Tables and marts hold what the tenants hold; of the broken one there is nothing."""
        for name in FRESH:
            warehouse = PostgresWarehouse(self.postgres, name)
            assert warehouse.machines() == true_machines(self.simulators[name].fleet)
            assert warehouse.missing_kbs() == true_missing_kbs(self.simulators[name].fleet)
        gone_on = PostgresWarehouse(self.postgres, KILLED).all("sweeps")
        assert len(gone_on) == 1, "the second try began anew, without the first one's STATE"
        marts = PostgresWarehouse(self.postgres, analytics)
        assert {row["tenant"] for row in marts.all("sweep_log") if row["is_complete"]} == FRESH
        truth = {(name, *pair) for name in FRESH for pair in pairs(self.simulators[name].fleet)}
        missing = marts.query("SELECT tenant, machine_id, kb_id FROM kb_episodes WHERE status = 'open'")
        assert truth
        assert {(row["tenant"], row["machine_id"], row["kb_id"]) for row in missing} == truth
        listed = {(name, machine) for name in FRESH for machine in self.simulators[name].fleet.listed()}
        assert {(row["tenant"], row["machine_id"]) for row in marts.all("machine_compliance")} == listed

    def assert_no_secret_in(self, text: str) -> None:
        """No tenant's secret, not even the wrong one."""
        assert [name for name, secret in self.secrets.items() if secret in text] == []


FAULTS = {
    # The answers after the first one hang, until the tap is killed: the next one's do not.
    KILLED: [Fault("slow", path="/api/machines/*/getmissingkbs", after=1, times=4, seconds=STUCK_SECONDS)],
    THROTTLED: [Fault("throttled", times=TIMES_THROTTLED, seconds=1)],
}

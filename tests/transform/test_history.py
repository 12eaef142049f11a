"""The measured history is the same in every warehouse, and what it is said to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.history import add_nights
from tests.transform.truth import Tenant

if TYPE_CHECKING:
    from tests.transform.warehouses import Warehouse

MACHINES, KBS, NIGHTS = 5, 3, 30


def test_every_machine_lacks_as_many_updates_every_night_and_they_change(warehouse: Warehouse) -> None:
    warehouse.load(Tenant(sweeps=[]))
    add_nights(warehouse, 1, NIGHTS - 1, MACHINES, KBS)
    add_nights(warehouse, NIGHTS, NIGHTS, MACHINES, KBS)
    nights = (
        "SELECT count(*) AS nights, min(missing_kbs) AS least, max(missing_kbs) AS most FROM mde.missing_kbs_checks"
    )
    assert warehouse.query(nights) == [{"nights": MACHINES * NIGHTS, "least": KBS, "most": KBS}]
    lacked = {
        (machine, 5_000_000 + slot * 100 + (night + machine * 7 + slot * 13) // (10 + (machine * 31 + slot * 17) % 41))
        for machine in range(MACHINES)
        for slot in range(KBS)
        for night in range(1, NIGHTS + 1)
    }
    rows = warehouse.query("SELECT machine_id, id FROM mde.missing_kbs")
    assert {(row["machine_id"], row["id"]) for row in rows} == {(f"machine-{m}", str(kb)) for m, kb in lacked}
    assert len(lacked) > MACHINES * KBS

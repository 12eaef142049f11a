"""Waits for the runs of a job of Dagster, and says how they ended; run by the Python that has Dagster.

`python dagster_runs.py JOB HOW_MANY SECONDS`
"""

from __future__ import annotations

import json
import sys
import time

from dagster import AssetCheckKey, AssetKey, DagsterInstance, RunsFilter

CHECKS = ("every_tenant_is_fresh", "every_tap_ended_well")


def main(job: str, runs: int, seconds: float) -> None:
    """Print the runs, by partition, and the newest result of each check."""
    with DagsterInstance.get() as instance:
        until = time.monotonic() + seconds
        while True:
            records = instance.get_run_records(RunsFilter(job_name=job))
            if len(records) == runs and all(each.dagster_run.is_finished for each in records):
                break
            if time.monotonic() > until:
                states = [(each.dagster_run.tags.get("dagster/partition"), each.dagster_run.status) for each in records]
                sys.exit(f"These have not ended: {states}")
            time.sleep(0.5)
        checks = {}
        for name in CHECKS:
            key = AssetCheckKey(AssetKey("marts"), name)
            found = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
            if found and found[0].event:
                checks[name] = found[0].event.dagster_event.event_specific_data
        answer = {
            "runs": {
                each.dagster_run.tags.get("dagster/partition", ""): each.dagster_run.status.value for each in records
            },
            "checks": {
                name: {
                    "passed": each.passed,
                    "description": each.description,
                    "tenants": each.metadata["tenants"].value,
                }
                for name, each in checks.items()
            },
        }
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))

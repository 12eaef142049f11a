"""A DAG that runs the Meltano project once a night; Airflow 3.

The connection `mde` has the client id as its login, the secret as its password and the tenant id in its extras;
`warehouse` is PostgreSQL's. Both are read when the task runs, so no secret stands in the DAG or in its log.
"""

from __future__ import annotations

import os
import subprocess
from datetime import datetime, timedelta, timezone

from airflow.sdk import BaseHook, dag, task

PROJECT = "/srv/tap-mde-kbs"
"""The Meltano project."""


@dag(
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,  # the API knows only what is missing now
    max_active_runs=1,  # two sweeps of one tenant halve each other's quota
)
def tap_mde_kbs() -> None:
    """What Defender's machines lack, into the warehouse."""

    @task(retries=3, retry_delay=timedelta(minutes=15), execution_timeout=timedelta(hours=12))
    def defender() -> None:
        """Run tap, target and dbt; a retry goes on from the last STATE."""
        mde, warehouse = BaseHook.get_connection("mde"), BaseHook.get_connection("warehouse")
        environment = {
            **os.environ,
            "TAP_MDE_KBS_TENANT_ID": mde.extra_dejson["tenant_id"],
            "TAP_MDE_KBS_CLIENT_ID": mde.login,
            "TAP_MDE_KBS_CLIENT_SECRET": mde.password,
            "PG_HOST": warehouse.host,
            "PG_PORT": str(warehouse.port or 5432),
            "PG_DATABASE": warehouse.schema,
            "PG_USER": warehouse.login,
            "PG_PASSWORD": warehouse.password,
        }
        command = ["meltano", "--environment=prod", "run", "defender"]
        subprocess.run(command, cwd=PROJECT, env=environment, check=True)

    defender()


tap_mde_kbs()

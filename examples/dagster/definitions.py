"""Many tenants on Dagster: a partition for each, the marts over all, and checks that name those that are not fresh."""

import json
import os
import subprocess
from pathlib import Path

import dagster as dg
import night
from tenants import TENANTS

HOURS = 36
"""A tenant is fresh whose last whole sweep ended within so many hours: as `dbt source freshness` has it."""
TRANSFORM = Path(__file__).parent / "../../transform"
"""The dbt project, unless DBT_PROJECT_DIR names another copy."""

NIGHT = 24
"""A run that ended longer ago was not last night's."""
ENDED_LATELY = """
SELECT tenant, tap_status, target_status, reason FROM provider.tenant_runs
WHERE ended_at IS NULL OR ended_at > now() - make_interval(hours => %s)
"""

FRESH = """
SELECT tenant FROM sweep_log WHERE is_complete AND is_believed IS NOT FALSE
GROUP BY tenant HAVING max(ended_at) > now() AT TIME ZONE 'UTC' - make_interval(hours => %s)
"""


@dg.asset(
    partitions_def=dg.StaticPartitionsDefinition([*TENANTS]),
    retry_policy=dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS),
)
def machines_and_missing_kbs(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """A tenant's machines and what they lack, in the schema of its name."""
    tenant = TENANTS[context.partition_key]
    ended = night.load(tenant)
    metadata = {"tap_status": ended.tap_status, "target_status": ended.target_status, "reason": ended.reason}
    if not ended.is_well:
        told = f"{tenant.name}: {ended.reason}"
        raise dg.Failure(told, metadata, allow_retries=ended.is_worth_a_retry)
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(deps=[machines_and_missing_kbs])
def marts() -> None:
    """The marts over all tenants; one that failed last night is in them as it was before."""
    environment = {"DBT_PROJECT_DIR": str(TRANSFORM.resolve()), **os.environ}
    environment.setdefault("DBT_PROFILES_DIR", environment["DBT_PROJECT_DIR"])
    command = ["dbt", "build", "--vars", json.dumps({"mde_schema": [*TENANTS]})]
    if status := subprocess.run(command, env=environment, check=False).returncode:
        # The checks are left out then.
        told = f"dbt ended with {status}: its own lines are in this run's log."
        raise dg.Failure(told, {"not_loaded": not_loaded()})


@dg.asset_check(asset=marts)
def every_tenant_is_fresh() -> dg.AssetCheckResult:
    """Whether the last whole sweep of each tenant is new enough."""
    with night.warehouse() as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", [os.environ.get("DBT_SCHEMA", "analytics")])
        fresh = {tenant for [tenant] in connection.execute(FRESH, [HOURS])}
    return named({name: f"no whole sweep in {HOURS} hours" for name in TENANTS if name not in fresh})


@dg.asset_check(asset=marts)
def every_tap_ended_well() -> dg.AssetCheckResult:
    """Whether each tenant was loaded last night: tap and target ended with exit status 0."""
    return named(not_loaded())


def not_loaded() -> dict[str, str]:
    """The tenants that were not, and why."""
    with night.warehouse() as connection:
        rows = connection.execute(ENDED_LATELY, [NIGHT])
        ended = {tenant: night.Ended(tap, target, reason) for tenant, tap, target, reason in rows}
    never = night.Ended(-1, -1, f"no run of it has ended for {NIGHT} hours")
    last = {name: ended.get(name, never) for name in TENANTS}
    return {name: each.reason for name, each in last.items() if not each.is_well}


def named(tenants: dict[str, str]) -> dg.AssetCheckResult:
    """A check's result that names the tenants that fail it, and why."""
    told = "\n".join(f"{name}: {why}" for name, why in tenants.items())
    return dg.AssetCheckResult(passed=not tenants, description=told, metadata={"tenants": tenants})


load_tenant = dg.define_asset_job("load_tenant", [machines_and_missing_kbs], tags={"dagster/max_runtime": 12 * 3600})
build_marts = dg.define_asset_job("build_marts", [marts])


@dg.schedule(job=load_tenant, cron_schedule="0 2 * * *")
def nightly() -> list[dg.RunRequest]:
    """A run for each tenant; `dagster.yaml` says how many of them at once."""
    return [dg.RunRequest(partition_key=name) for name in TENANTS]


morning = dg.ScheduleDefinition("morning", job=build_marts, cron_schedule="0 6 * * *")

defs = dg.Definitions(
    assets=[machines_and_missing_kbs, marts],
    asset_checks=[every_tenant_is_fresh, every_tap_ended_well],
    jobs=[load_tenant, build_marts],
    schedules=[nightly, morning],
    executor=dg.in_process_executor,  # a run is one asset: it needs no processes of its own
)

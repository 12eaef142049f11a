with

machines as (

    select * from {{ ref('int_machines') }}
    where not has_left

),

episodes as (

    select * from {{ ref('kb_episodes') }}
    where status = 'open'

),

missed as (

    select
        tenant,
        machine_id,
        count(*) as missing_kbs,
        cast(sum(cve_addressed) as bigint) as missing_cves,
        max(days_missing) as oldest_missing_days
    from episodes
    group by tenant, machine_id

),

overdue as (

    select
        tenant,
        machine_id,
        count(*) as overdue_kbs
    from {{ ref('overdue_pairs') }}
    group by tenant, machine_id

),

installs as (

    select
        tenant,
        machine_id,
        count(*) as updates_to_install
    from {{ ref('updates_to_install') }}
    group by tenant, machine_id

),

joined as (

    select
        machines.*,
        machines.last_answered_at is not null as is_known,
        machines.last_answered_at is not null and machines.is_assessed as can_be_counted,
        coalesce(missed.missing_kbs, 0) as missing_kbs,
        coalesce(missed.missing_cves, 0) as missing_cves,
        coalesce(overdue.overdue_kbs, 0) as overdue_kbs,
        coalesce(installs.updates_to_install, 0) as updates_to_install,
        missed.oldest_missing_days
    from machines
    left join missed
        on machines.tenant = missed.tenant
        and machines.machine_id = missed.machine_id
    left join overdue
        on machines.tenant = overdue.tenant
        and machines.machine_id = overdue.machine_id
    left join installs
        on machines.tenant = installs.tenant
        and machines.machine_id = installs.machine_id

)

-- What a machine lacks that never answered, or is not assessed any more, nobody knows: null is not nought.
select
    tenant,
    machine_id,
    computer_dns_name,
    os_platform,
    rbac_group_name,
    risk_score,
    exposure_level,
    health_status,
    onboarding_status,
    last_seen,
    is_active,
    last_checked_at,
    last_outcome,
    last_reason,
    last_answered_at,
    is_known,
    is_assessed,
    case when can_be_counted then missing_kbs end as missing_kbs,
    case when can_be_counted then missing_cves end as missing_cves,
    case when can_be_counted then overdue_kbs end as overdue_kbs,
    oldest_missing_days,
    case when can_be_counted then missing_kbs = 0 end as is_fully_patched,
    case when can_be_counted then updates_to_install end as updates_to_install
from joined

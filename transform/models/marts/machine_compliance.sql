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
        machine_id,
        count(*) as missing_kbs,
        cast(sum(cve_addressed) as bigint) as missing_cves,
        max(days_missing) as oldest_missing_days
    from episodes
    group by machine_id

),

overdue as (

    select
        machine_id,
        count(*) as overdue_kbs
    from {{ ref('overdue_pairs') }}
    group by machine_id

),

joined as (

    select
        machines.*,
        machines.last_answered_at is not null as is_known,
        coalesce(missed.missing_kbs, 0) as missing_kbs,
        coalesce(missed.missing_cves, 0) as missing_cves,
        coalesce(overdue.overdue_kbs, 0) as overdue_kbs,
        missed.oldest_missing_days
    from machines
    left join missed on machines.machine_id = missed.machine_id
    left join overdue on machines.machine_id = overdue.machine_id

)

-- Of a machine that never answered nobody knows what it lacks: null is not nought.
select
    machine_id,
    tenant,
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
    last_answered_at,
    is_known,
    case when is_known then missing_kbs end as missing_kbs,
    case when is_known then missing_cves end as missing_cves,
    case when is_known then overdue_kbs end as overdue_kbs,
    oldest_missing_days,
    case when is_known then missing_kbs = 0 end as is_fully_patched
from joined

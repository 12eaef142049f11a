with

machines as (

    select * from {{ ref('stg_machines') }}

),

newest as (

    select * from {{ ref('int_newest') }}

),

summed_checks as (

    select
        tenant,
        machine_id,
        max(sweep) as last_sweep,
        max(case when outcome = 'answered' then sweep end) as last_answered_in
    from {{ ref('stg_checks') }}
    group by tenant, machine_id

),

checked_machines as (

    select
        summed_checks.*,
        checks.checked_at as last_checked_at,
        checks.outcome as last_outcome,
        checks.reason as last_reason,
        answers.checked_at as last_answered_at
    from summed_checks
    inner join {{ ref('stg_checks') }} as checks
        on summed_checks.tenant = checks.tenant
        and summed_checks.machine_id = checks.machine_id
        and summed_checks.last_sweep = checks.sweep
    left join {{ ref('stg_checks') }} as answers
        on summed_checks.tenant = answers.tenant
        and summed_checks.machine_id = answers.machine_id
        and summed_checks.last_answered_in = answers.sweep

),

-- A target that deletes rows has no row for a machine that left, but its checks.
known_machines as (

    select
        coalesce(machines.tenant, checked_machines.tenant) as tenant,
        coalesce(machines.machine_id, checked_machines.machine_id) as machine_id,
        machines.computer_dns_name,
        machines.os_platform,
        machines.rbac_group_name,
        machines.risk_score,
        machines.exposure_level,
        machines.health_status,
        machines.onboarding_status,
        machines.last_seen,
        machines.listed_at,
        machines.listing,
        machines.machine_id is not null as has_row,
        checked_machines.last_sweep,
        checked_machines.last_checked_at,
        checked_machines.last_outcome,
        checked_machines.last_reason,
        checked_machines.last_answered_at
    from machines
    full outer join checked_machines
        on machines.tenant = checked_machines.tenant
        and machines.machine_id = checked_machines.machine_id

),

judged as (

    select
        known_machines.*,
        newest.newest_checked_at,
        case
            when newest.has_listings
                then not known_machines.has_row or coalesce(known_machines.listing, -1) < newest.newest_listing
            -- Of an earlier version: neither the newest listing nor the newest sweep names it.
            else
                coalesce(known_machines.listed_at <> newest.newest_listed_at, true)
                and coalesce(known_machines.last_sweep <> newest.newest_sweep, true)
        end as has_left,
        coalesce(known_machines.last_outcome <> 'skipped', true) as is_assessed,
        -- The tap asks machines of unknown status, so null counts as onboarded here, too.
        coalesce(known_machines.onboarding_status, 'Onboarded') = 'Onboarded' as is_onboarded,
        coalesce(
            known_machines.last_seen
            >= {{ dbt.dateadd('day', -var('active_days'), 'known_machines.listed_at') }},
            false
        ) as is_recently_seen
    from known_machines
    left join newest on known_machines.tenant = newest.tenant

)

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
    last_checked_at,
    last_outcome,
    last_reason,
    last_answered_at,
    newest_checked_at,
    coalesce(has_left, false) as has_left,
    is_assessed,
    is_onboarded and is_recently_seen as is_active,
    is_recently_seen
from judged

with

episodes as (

    select * from {{ ref('int_kb_episodes') }}

),

machines as (

    select * from {{ ref('int_machines') }}

),

pairs as (

    select * from {{ ref('int_missed_pairs') }}

),

deadlines as (

    select * from {{ ref('int_pair_deadlines') }}

),

numbered as (

    select
        *,
        row_number() over (partition by tenant, machine_id, kb_id order by first_missed_in) as episode_number
    from episodes

),

joined as (

    select
        numbered.*,
        numbered.not_missed_at is not null as first_missed_at_is_known,
        pairs.cve_addressed,
        pairs.worst_severity_rank,
        pairs.first_seen_at,
        deadlines.deadline_days,
        case
            when numbered.installed_by is not null then 'installed'
            when machines.has_left then 'machine_left'
            when not machines.is_assessed then 'not_assessed'
            else 'open'
        end as status,
        machines.newest_checked_at
    from numbered
    left join machines
        on numbered.tenant = machines.tenant
        and numbered.machine_id = machines.machine_id
    left join pairs
        on numbered.tenant = pairs.tenant
        and numbered.machine_id = pairs.machine_id
        and numbered.kb_id = pairs.kb_id
    left join deadlines
        on numbered.tenant = deadlines.tenant
        and numbered.machine_id = deadlines.machine_id
        and numbered.kb_id = deadlines.kb_id

),

with_ends as (

    select
        *,
        -- An export knows of what was missing before the machine was first asked.
        case
            when
                not first_missed_at_is_known
                and first_seen_at < first_missed_at
                and first_seen_at <= newest_checked_at
                then first_seen_at
            else first_missed_at
        end as missing_since,
        case status
            when 'installed' then installed_by
            when 'open' then newest_checked_at
            else last_missed_at
        end as missing_until
    from joined

)

select
    tenant,
    machine_id,
    kb_id,
    first_missed_at,
    last_missed_at,
    installed_by,
    not_missed_at,
    missed_checks,
    episode_number,
    status,
    deadline_days,
    {{ dbt.dateadd('day', 'deadline_days', 'first_missed_at') }} as due_at,
    cve_addressed,
    {{ severity_of_rank('worst_severity_rank') }} as worst_severity,
    missing_since,
    {{ days_passed('missing_since', 'missing_until') }} as days_missing,
    first_missed_at_is_known,
    episode_number > 1 as came_back
from with_ends

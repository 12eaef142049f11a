with

episodes as (

    select * from {{ ref('int_kb_episodes') }}

),

machines as (

    select * from {{ ref('int_machines') }}

),

machine_kbs as (

    select * from {{ ref('int_machine_kbs') }}

),

kbs as (

    select
        facts.kb_id,
        facts.severity_rank,
        kbs.cve_addressed
    from {{ ref('int_kb_facts') }} as facts
    left join {{ ref('int_kbs') }} as kbs on facts.kb_id = kbs.kb_id

),

classes as (

    select * from {{ ref('int_machine_classes') }}

),

rules as (

    select * from {{ ref('int_deadline_rules') }}
    where rule_book = '{{ var("rule_book") }}'

),

joined as (

    select
        episodes.*,
        episodes.not_missed_at is not null as first_missed_at_is_known,
        coalesce(machine_kbs.cve_addressed, kbs.cve_addressed) as cve_addressed,
        kbs.severity_rank,
        machine_kbs.first_seen_at,
        rules.days,
        rules.fixed_days,
        rules.fixed_due_at,
        cast({{ dbt.dateadd('day', 'rules.days', 'episodes.first_missed_at') }} as {{ dbt.type_timestamp() }})
            as relative_due_at,
        case
            when episodes.installed_by is not null then 'installed'
            when machines.has_left then 'machine_left'
            when not machines.is_assessed then 'not_assessed'
            else 'open'
        end as status,
        machines.newest_checked_at
    from episodes
    left join machines
        on episodes.tenant = machines.tenant
        and episodes.machine_id = machines.machine_id
    left join classes
        on episodes.tenant = classes.tenant
        and episodes.machine_id = classes.machine_id
    left join machine_kbs
        on episodes.tenant = machine_kbs.tenant
        and episodes.machine_id = machine_kbs.machine_id
        and episodes.kb_id = machine_kbs.kb_id
    left join kbs on episodes.kb_id = kbs.kb_id
    left join rules
        on classes.machine_class = rules.machine_class
        and episodes.kb_id = rules.kb_id
        and coalesce(machine_kbs.cve_addressed, kbs.cve_addressed, -1) = coalesce(rules.cve_addressed, -1)

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
    case when {{ is_due_by_day() }} then fixed_days else days end as deadline_days,
    case when {{ is_due_by_day() }} then fixed_due_at else relative_due_at end as due_at,
    cve_addressed,
    {{ severity_of_rank('severity_rank') }} as worst_severity,
    missing_since,
    {{ days_passed('missing_since', 'missing_until') }} as days_missing,
    first_missed_at_is_known,
    episode_number > 1 as came_back
from with_ends

with

episodes as (

    select * from {{ ref('kb_episodes') }}
    where status = 'open'

),

classes as (

    select * from {{ ref('int_machine_classes') }}

),

rules as (

    select * from {{ ref('int_deadline_rules') }}

),

machines as (

    select * from {{ ref('int_machines') }}

),

joined as (

    select
        episodes.tenant,
        episodes.machine_id,
        episodes.kb_id,
        rules.rule_book,
        rules.rule_id,
        rules.forensic_triage,
        rules.clock_is_assumed,
        rules.fixed_rule_id,
        rules.fixed_forensic_triage,
        rules.fixed_due_at,
        machines.newest_checked_at,
        cast({{ dbt.dateadd('day', 'rules.days', 'episodes.first_missed_at') }} as {{ dbt.type_timestamp() }})
            as relative_due_at
    from episodes
    inner join classes
        on episodes.tenant = classes.tenant
        and episodes.machine_id = classes.machine_id
    inner join rules
        on classes.machine_class = rules.machine_class
        and episodes.kb_id = rules.kb_id
        and coalesce(episodes.cve_addressed, -1) = coalesce(rules.cve_addressed, -1)
    inner join machines
        on episodes.tenant = machines.tenant
        and episodes.machine_id = machines.machine_id

),

decided as (

    select
        *,
        {{ is_due_by_day() }} as is_fixed,
        case when {{ is_due_by_day() }} then fixed_due_at else relative_due_at end as due_at
    from joined

)

select
    tenant,
    machine_id,
    kb_id,
    rule_book,
    case when is_fixed then fixed_rule_id else rule_id end as rule_id,
    due_at,
    case when due_at < newest_checked_at then {{ days_between('due_at', 'newest_checked_at') }} end as days_overdue,
    case when is_fixed then fixed_forensic_triage else forensic_triage end as forensic_triage,
    not is_fixed and clock_is_assumed as clock_is_assumed
from decided

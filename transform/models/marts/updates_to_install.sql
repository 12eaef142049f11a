with

machine_sets as (

    select * from {{ ref('int_machine_sets') }}

),

episodes as (

    select * from {{ ref('kb_episodes') }}
    where status = 'open'

),

deadlines as (

    select * from {{ ref('pair_deadlines') }}
    where rule_book = '{{ var("rule_book") }}'

),

machines as (

    select * from {{ ref('int_machines') }}

),

-- Each open update of a machine with the one that closes it there; some are closed by several.
closed as (

    select
        machine_sets.tenant,
        machine_sets.machine_id,
        machine_sets.set_id,
        installs.kb_id,
        episodes.missing_since,
        deadlines.rule_id,
        deadlines.due_at,
        deadlines.forensic_triage,
        min(deadlines.due_at) over (
            partition by machine_sets.tenant, machine_sets.machine_id, installs.kb_id
        ) as earliest_due_at
    from machine_sets
    inner join {{ ref('int_set_installs') }} as installs on machine_sets.set_id = installs.set_id
    inner join episodes
        on machine_sets.tenant = episodes.tenant
        and machine_sets.machine_id = episodes.machine_id
        and installs.closed_kb_id = episodes.kb_id
    left join deadlines
        on machine_sets.tenant = deadlines.tenant
        and machine_sets.machine_id = deadlines.machine_id
        and installs.closed_kb_id = deadlines.kb_id

),

summed as (

    select
        tenant,
        machine_id,
        set_id,
        kb_id,
        min(missing_since) as missing_since,
        min(case when due_at = earliest_due_at then rule_id end) as rule_id,
        min(due_at) as due_at,
        max(case when forensic_triage then 1 else 0 end) = 1 as forensic_triage
    from closed
    group by tenant, machine_id, set_id, kb_id

)

select
    summed.tenant,
    summed.machine_id,
    summed.kb_id,
    installs.closes_kbs,
    installs.closes_kb_ids,
    installs.is_assumed,
    summed.missing_since,
    installs.cves,
    installs.kev_cves,
    installs.attacked_cves,
    {{ severity_of_rank('installs.severity_rank') }} as severity,
    installs.max_epss,
    facts.restart_required,
    facts.released_on,
    summed.rule_id,
    summed.due_at,
    case
        when summed.due_at < machines.newest_checked_at
            then {{ days_between('summed.due_at', 'machines.newest_checked_at') }}
    end as days_overdue,
    summed.forensic_triage
from summed
inner join {{ ref('int_installs') }} as installs
    on summed.set_id = installs.set_id
    and summed.kb_id = installs.kb_id
inner join {{ ref('int_kb_facts') }} as facts on summed.kb_id = facts.kb_id
inner join machines
    on summed.tenant = machines.tenant
    and summed.machine_id = machines.machine_id

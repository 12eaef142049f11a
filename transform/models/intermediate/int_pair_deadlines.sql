with

pairs as (

    select * from {{ ref('int_missed_pairs') }}

),

machine_deadlines as (

    select * from {{ ref('int_machine_deadlines') }}

)

-- The strictest that fits: by severity where it is known, else by the number of CVEs.
select
    pairs.tenant,
    pairs.machine_id,
    pairs.kb_id,
    min(machine_deadlines.days) as deadline_days
from pairs
inner join machine_deadlines
    on pairs.tenant = machine_deadlines.tenant
    and pairs.machine_id = machine_deadlines.machine_id
    and (
        machine_deadlines.is_for_any_kb
        or pairs.worst_severity_rank >= machine_deadlines.min_severity_rank
        or (pairs.worst_severity_rank is null and pairs.cve_addressed >= machine_deadlines.min_cve_addressed)
    )
group by pairs.tenant, pairs.machine_id, pairs.kb_id

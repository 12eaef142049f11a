-- Apart from compliance_by_day, since it needs no episodes: it is made while they are, not before what they wait for.
-- depends_on: {{ ref('int_newest') }}
with

machines as (

    select
        cast(checked_at as date) as day,
        tenant,
        machine_id,
        max(case when outcome <> 'skipped' then 1 else 0 end) as was_asked,
        max(case when outcome = 'answered' then 1 else 0 end) as has_answered
    from {{ ref('stg_checks') }}
    group by cast(checked_at as date), tenant, machine_id

)

select
    day,
    cast(sum(was_asked) as bigint) as machines_asked,
    cast(sum(has_answered) as bigint) as machines_answered
from machines
group by day

with

episodes as (

    select * from {{ ref('kb_episodes') }}

),

machines as (

    select * from {{ ref('int_machines') }}

)

select
    episodes.tenant,
    episodes.machine_id,
    episodes.kb_id,
    episodes.first_missed_at,
    episodes.due_at,
    episodes.deadline_days,
    episodes.days_missing,
    {{ days_between('episodes.due_at', 'machines.newest_checked_at') }} as days_overdue,
    episodes.first_missed_at_is_known
from episodes
inner join machines
    on episodes.tenant = machines.tenant
    and episodes.machine_id = machines.machine_id
where
    episodes.status = 'open'
    and episodes.due_at < machines.newest_checked_at

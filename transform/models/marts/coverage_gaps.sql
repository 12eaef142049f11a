with

machines as (

    select * from {{ ref('int_machines') }}
    where not has_left

),

reasoned as (

    select
        *,
        case
            when last_outcome is null then 'never_asked'
            -- An earlier version skipped nobody else.
            when last_outcome = 'skipped' then coalesce(last_reason, 'not_onboarded')
            when last_outcome <> 'answered' then last_outcome
            when not is_recently_seen then 'quiet'
        end as reason
    from machines

)

select
    tenant,
    machine_id,
    computer_dns_name,
    rbac_group_name,
    last_seen,
    last_checked_at,
    last_outcome,
    last_answered_at,
    reason
from reasoned
where reason is not null

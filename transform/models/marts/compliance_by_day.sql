with

checks as (

    select
        *,
        cast(checked_at as date) as day
    from {{ ref('stg_checks') }}

),

episodes as (

    select * from {{ ref('kb_episodes') }}

),

asked as (

    select
        day,
        count(distinct case when outcome <> 'skipped' then machine_id end) as machines_asked,
        count(distinct case when outcome = 'answered' then machine_id end) as machines_answered
    from checks
    group by day

),

answers as (

    select
        *,
        cast(checked_at as date) as day
    from {{ ref('int_answers') }}

),

ranked_answers as (

    select
        *,
        row_number() over (partition by machine_id, day order by checked_at desc, sweep desc) as recency
    from answers

),

patched as (

    select
        day,
        count(*) as machines_with_nothing_missing
    from ranked_answers
    where
        recency = 1
        and missing_kbs = 0
    group by day

),

changes as (

    select cast(first_missed_at as date) as day, 1 as opened, 0 as installed, 0 as gone from episodes
    union all
    select cast(installed_by as date), 0, 1, 0
    from episodes
    where installed_by is not null
    union all
    -- They count through the day of the last answer.
    select cast({{ dbt.dateadd('day', 1, 'last_missed_at') }} as date), 0, 0, 1
    from episodes
    where status = 'machine_left'
    union all
    select day, 0, 0, 0 from asked

),

changes_by_day as (

    select
        day,
        sum(opened) as opened_pairs,
        sum(installed) as installed_pairs,
        sum(opened - installed - gone) as growth
    from changes
    group by day

),

running as (

    select
        day,
        opened_pairs,
        installed_pairs,
        sum(growth) over (order by day rows between unbounded preceding and current row) as open_pairs
    from changes_by_day

)

select
    asked.day,
    cast(running.opened_pairs as bigint) as opened_pairs,
    cast(running.installed_pairs as bigint) as installed_pairs,
    cast(running.open_pairs as bigint) as open_pairs,
    asked.machines_asked,
    asked.machines_answered,
    coalesce(patched.machines_with_nothing_missing, 0) as machines_with_nothing_missing
from asked
inner join running on asked.day = running.day
left join patched on asked.day = patched.day

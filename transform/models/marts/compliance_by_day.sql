with

episodes as (

    select * from {{ ref('kb_episodes') }}

),

history as (

    select * from {{ ref('int_kb_episodes') }}

),

asked as (

    select * from {{ ref('int_asked_by_day') }}

),

-- The last answer of a machine on a day, where it names nothing.
empty_answers as (

    select
        cast(answers.checked_at as date) as day,
        answers.tenant,
        answers.machine_id,
        answers.sweep,
        answers.is_unbelieved
    from {{ ref('int_answers') }} as answers
    left join {{ ref('int_answers') }} as later
        on answers.tenant = later.tenant
        and answers.machine_id = later.machine_id
        and cast(answers.checked_at as date) = cast(later.checked_at as date)
        and answers.sweep < later.sweep
    where
        answers.missing_kbs = 0
        and later.sweep is null

),

-- An empty answer that is not believed takes nothing from a machine that lacked something before.
empty_but_missing as (

    select distinct
        empty_answers.tenant,
        empty_answers.machine_id,
        empty_answers.sweep
    from empty_answers
    inner join history
        on empty_answers.tenant = history.tenant
        and empty_answers.machine_id = history.machine_id
        and empty_answers.sweep > history.first_missed_in
        and (history.installed_in is null or empty_answers.sweep < history.installed_in)
    where empty_answers.is_unbelieved

),

patched as (

    select
        empty_answers.day,
        count(*) as machines_with_nothing_missing
    from empty_answers
    left join empty_but_missing
        on empty_answers.tenant = empty_but_missing.tenant
        and empty_answers.machine_id = empty_but_missing.machine_id
        and empty_answers.sweep = empty_but_missing.sweep
    where empty_but_missing.sweep is null
    group by empty_answers.day

),

dated_episodes as (

    select
        status,
        cast(first_missed_at as date) as first_day,
        cast(last_missed_at as date) as last_day,
        cast(installed_by as date) as installed_day,
        cast({{ dbt.dateadd('day', 1, 'last_missed_at') }} as date) as day_after_last
    from episodes

),

-- Many have all their days in common.
days_of_episodes as (

    select
        status,
        first_day,
        last_day,
        installed_day,
        day_after_last,
        count(*) as pairs
    from dated_episodes
    group by status, first_day, last_day, installed_day, day_after_last

),

-- With a clock that went backwards an episode may end before it began: then it was open at the end of no day.
changes as (

    select first_day as day, pairs as opened, 0 as installed, 0 as not_assessed, pairs as growth from days_of_episodes
    union all
    select installed_day, 0, pairs, 0, 0
    from days_of_episodes
    where status = 'installed'
    union all
    select greatest(installed_day, first_day), 0, 0, 0, -pairs
    from days_of_episodes
    where status = 'installed'
    union all
    select last_day, 0, 0, pairs, 0
    from days_of_episodes
    where status = 'not_assessed'
    union all
    -- They count through the day of the last answer.
    select greatest(day_after_last, first_day), 0, 0, 0, -pairs
    from days_of_episodes
    where status in ('not_assessed', 'machine_left')
    union all
    select day, 0, 0, 0, 0 from asked

),

changes_by_day as (

    select
        day,
        sum(opened) as opened_pairs,
        sum(installed) as installed_pairs,
        sum(not_assessed) as not_assessed_pairs,
        sum(growth) as growth
    from changes
    group by day

),

running as (

    select
        day,
        opened_pairs,
        installed_pairs,
        not_assessed_pairs,
        sum(growth) over (order by day rows between unbounded preceding and current row) as open_pairs
    from changes_by_day

)

select
    asked.day,
    cast(running.opened_pairs as bigint) as opened_pairs,
    cast(running.installed_pairs as bigint) as installed_pairs,
    cast(running.not_assessed_pairs as bigint) as not_assessed_pairs,
    cast(running.open_pairs as bigint) as open_pairs,
    asked.machines_asked,
    asked.machines_answered,
    coalesce(patched.machines_with_nothing_missing, 0) as machines_with_nothing_missing
from asked
inner join running on asked.day = running.day
left join patched on asked.day = patched.day

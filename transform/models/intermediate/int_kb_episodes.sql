{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key=['machine_id', 'kb_id', 'first_missed_at'],
        on_schema_change='fail',
        pre_hook='{{ tap_mde_kbs.forget_replaced_answers() }}'
    )
}}

with

answers as (

    select * from {{ ref('int_answers') }}

),

{% if is_incremental() %}

-- One watermark for each machine: sweeps are resumed, and machines are asked at different times.
known_machines as (

    select
        machine_id,
        max(coalesce(installed_by, last_missed_at)) as known_until
    from {{ this }}
    group by machine_id

),

unknown_answers as (

    select
        answers.*,
        known_machines.known_until
    from answers
    left join known_machines on answers.machine_id = known_machines.machine_id
    where known_machines.known_until is null or answers.checked_at > known_machines.known_until

),

{% else %}

unknown_answers as (

    select
        *,
        cast(null as {{ dbt.type_timestamp() }}) as known_until
    from answers

),

{% endif %}

-- An export that is loaded again in another sweep answers at the same moment as before: that is one answer.
new_answers as (

    select
        machine_id,
        checked_at,
        known_until,
        max(sweep) as sweep,
        max(missing_kbs) as missing_kbs
    from unknown_answers
    group by machine_id, checked_at, known_until

),

numbered_answers as (

    select
        machine_id,
        checked_at,
        sweep,
        row_number() over (partition by machine_id order by checked_at) as answer_number,
        coalesce(lag(checked_at) over (partition by machine_id order by checked_at), known_until) as previous_answer_at,
        lead(checked_at) over (partition by machine_id order by checked_at) as next_answer_at
    from new_answers

),

-- The bound spares all older sweeps' arrays: what a machine that lacks nothing said then is read again and again.
first_sweep_to_read as (

    select min(sweep) as sweep
    from new_answers
    where missing_kbs > 0

),

missed_kbs as (

    select missed.*
    from {{ ref('stg_missed_kbs') }} as missed
    inner join first_sweep_to_read on missed.sweep >= first_sweep_to_read.sweep

),

missed_answers as (

    select
        numbered_answers.machine_id,
        missed_kbs.kb_id,
        numbered_answers.answer_number,
        numbered_answers.checked_at as first_missed_at,
        numbered_answers.checked_at as last_missed_at,
        1 as missed_checks,
        numbered_answers.previous_answer_at,
        numbered_answers.next_answer_at
    from numbered_answers
    inner join missed_kbs
        on numbered_answers.machine_id = missed_kbs.machine_id
        and numbered_answers.sweep = missed_kbs.sweep

    {% if is_incremental() %}

    union all

    -- An episode that is open goes on, as one long answer before the first new one.
    select
        open_episodes.machine_id,
        open_episodes.kb_id,
        0 as answer_number,
        open_episodes.first_missed_at,
        open_episodes.last_missed_at,
        open_episodes.missed_checks,
        open_episodes.not_missed_at as previous_answer_at,
        numbered_answers.checked_at as next_answer_at
    from {{ this }} as open_episodes
    inner join numbered_answers
        on open_episodes.machine_id = numbered_answers.machine_id
        and numbered_answers.answer_number = 1
    where open_episodes.installed_by is null

    {% endif %}

),

runs_of_answers as (

    select
        *,
        -- The same for answers that follow each other without a gap.
        answer_number - row_number() over (partition by machine_id, kb_id order by answer_number) as run_number
    from missed_answers

)

-- Only a machine's first answer has none before it, only its newest has none after it: where one of a run has none, the
-- run begins or ends with that. (min and max alone would pass over it.)
select
    machine_id,
    kb_id,
    min(first_missed_at) as first_missed_at,
    max(last_missed_at) as last_missed_at,
    case when count(next_answer_at) = count(*) then max(next_answer_at) end as installed_by,
    case when count(previous_answer_at) = count(*) then min(previous_answer_at) end as not_missed_at,
    cast(sum(missed_checks) as bigint) as missed_checks
from runs_of_answers
group by machine_id, kb_id, run_number

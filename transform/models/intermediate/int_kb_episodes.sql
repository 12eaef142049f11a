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

missed_kbs as (

    select * from {{ ref('stg_missed_kbs') }}

),

{% if is_incremental() %}

known_episodes as (

    select
        *,
        -- One watermark for each machine: sweeps are resumed, and machines are asked at different times.
        max(coalesce(installed_by, last_missed_at)) over (partition by machine_id) as known_until
    from {{ this }}

),

known_answers as (

    select distinct machine_id, known_until as checked_at
    from known_episodes

),

new_answers as (

    select answers.*
    from answers
    left join known_answers on answers.machine_id = known_answers.machine_id
    where known_answers.machine_id is null or answers.checked_at > known_answers.checked_at

),

{% else %}

new_answers as (

    select * from answers

),

{% endif %}

numbered_answers as (

    select
        machine_id,
        checked_at,
        sweep,
        row_number() over (partition by machine_id order by checked_at) as answer_number
    from new_answers

{% if is_incremental() %}

    union all

    -- What is known already is the answer before the first new one.
    select machine_id, checked_at, cast(null as bigint) as sweep, 0 as answer_number
    from known_answers

{% endif %}

),

missed_answers as (

    select
        numbered_answers.machine_id,
        missed_kbs.kb_id,
        numbered_answers.answer_number,
        numbered_answers.checked_at as first_missed_at,
        numbered_answers.checked_at as last_missed_at,
        1 as missed_checks,
        cast(null as {{ dbt.type_timestamp() }}) as not_missed_at
    from numbered_answers
    inner join missed_kbs
        on numbered_answers.machine_id = missed_kbs.machine_id
        and numbered_answers.sweep = missed_kbs.sweep

{% if is_incremental() %}

    union all

    -- An episode that is open goes on as one long answer.
    select
        known_episodes.machine_id,
        known_episodes.kb_id,
        0 as answer_number,
        known_episodes.first_missed_at,
        known_episodes.last_missed_at,
        known_episodes.missed_checks,
        known_episodes.not_missed_at
    from known_episodes
    inner join numbered_answers
        on known_episodes.machine_id = numbered_answers.machine_id
        and numbered_answers.answer_number = 1
    where known_episodes.installed_by is null

{% endif %}

),

runs_of_answers as (

    select
        *,
        -- The same for answers that follow each other without a gap.
        answer_number - row_number() over (partition by machine_id, kb_id order by answer_number) as run_number
    from missed_answers

),

episodes as (

    select
        machine_id,
        kb_id,
        min(first_missed_at) as first_missed_at,
        max(last_missed_at) as last_missed_at,
        min(answer_number) as first_answer_number,
        max(answer_number) as last_answer_number,
        cast(sum(missed_checks) as bigint) as missed_checks,
        max(not_missed_at) as not_missed_at
    from runs_of_answers
    group by machine_id, kb_id, run_number

)

select
    episodes.machine_id,
    episodes.kb_id,
    episodes.first_missed_at,
    episodes.last_missed_at,
    answers_after.checked_at as installed_by,
    coalesce(answers_before.checked_at, episodes.not_missed_at) as not_missed_at,
    episodes.missed_checks
from episodes
left join numbered_answers as answers_before
    on episodes.machine_id = answers_before.machine_id
    and episodes.first_answer_number - 1 = answers_before.answer_number
left join numbered_answers as answers_after
    on episodes.machine_id = answers_after.machine_id
    and episodes.last_answer_number + 1 = answers_after.answer_number

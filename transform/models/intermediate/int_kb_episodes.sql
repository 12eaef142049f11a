{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key=['tenant', 'machine_id', 'kb_id', 'first_missed_at'],
        on_schema_change='append_new_columns',
        pre_hook='{{ tap_mde_kbs.forget_what_changed() }}'
    )
}}

{%- set goes_on = history_goes_on() %}

-- The hook reads it, too.
-- depends_on: {{ ref('int_sweeps') }}
-- depends_on: {{ ref('stg_checks') }}
with

answers as (

    select * from {{ ref('int_answers') }}

),

{% if goes_on %}

-- One watermark for each machine: sweeps are resumed, and machines are asked in different ones.
known_machines as (

    select
        tenant,
        machine_id,
        max(coalesce(installed_in, last_missed_in)) as known_sweep
    from {{ this }}
    group by tenant, machine_id

),

-- From the newest known answer on: it is believed, or else the machine was forgotten.
answers_to_read as (

    select
        answers.*,
        coalesce(answers.sweep > known_machines.known_sweep, true) as is_new
    from answers
    left join known_machines
        on answers.tenant = known_machines.tenant
        and answers.machine_id = known_machines.machine_id
    where
        known_machines.known_sweep is null
        or answers.sweep >= known_machines.known_sweep

),

{% else %}

answers_to_read as (

    select
        *,
        true as is_new
    from answers

),

{% endif %}

-- The believed answers are numbered; the others have the number of the one before.
numbered_answers as (

    select
        tenant,
        machine_id,
        sweep,
        checked_at,
        missing_kbs,
        missing_kb_ids,
        is_new,
        case when is_unbelieved then 0 else 1 end as believed,
        sum(case when is_unbelieved then 0 else 1 end) over (
            partition by tenant, machine_id
            order by sweep
            rows between unbounded preceding and current row
        ) as answer_number
    from answers_to_read

),

believed_answers as (

    select
        tenant,
        machine_id,
        sweep,
        checked_at,
        answer_number,
        lag(checked_at) over (partition by tenant, machine_id order by answer_number) as previous_answer_at,
        lead(sweep) over (partition by tenant, machine_id order by answer_number) as next_answer_in,
        lead(checked_at) over (partition by tenant, machine_id order by answer_number) as next_answer_at
    from numbered_answers
    where believed = 1

),

answers_with_neighbours as (

    select
        tenant,
        machine_id,
        sweep,
        checked_at,
        previous_answer_at,
        next_answer_in,
        next_answer_at
    from believed_answers

    union all

    -- Few, or none: an answer that is not believed has the neighbours that are.
    select
        numbered_answers.tenant,
        numbered_answers.machine_id,
        numbered_answers.sweep,
        numbered_answers.checked_at,
        previous.checked_at as previous_answer_at,
        following.sweep as next_answer_in,
        following.checked_at as next_answer_at
    from numbered_answers
    left join believed_answers as previous
        on numbered_answers.tenant = previous.tenant
        and numbered_answers.machine_id = previous.machine_id
        and numbered_answers.answer_number = previous.answer_number
    left join believed_answers as following
        on numbered_answers.tenant = following.tenant
        and numbered_answers.machine_id = following.machine_id
        and numbered_answers.answer_number + 1 = following.answer_number
    where numbered_answers.believed = 0

),

answers_with_kbs as (

    select * from numbered_answers
    where
        is_new
        and missing_kbs > 0

),

named_kbs as (

    {{ unnest_array(
        'answers_with_kbs', ['tenant', 'machine_id', 'sweep', 'believed', 'answer_number'], 'missing_kb_ids', 'kb_id'
    ) }}

),

missed_answers as (

    select
        tenant,
        machine_id,
        kb_id,
        sweep,
        believed,
        answer_number - believed as answers_before,
        1 as missed_checks,
        cast(null as {{ dbt.type_timestamp() }}) as first_missed_at,
        cast(null as bigint) as first_missed_in,
        cast(null as {{ dbt.type_timestamp() }}) as not_missed_at,
        cast(null as bigint) as episode_number
    from named_kbs

    {% if goes_on %}

    union all

    -- An episode that is open goes on, as if the newest known answer were all that it had.
    select
        open_episodes.tenant,
        open_episodes.machine_id,
        open_episodes.kb_id,
        open_episodes.last_missed_in as sweep,
        1 as believed,
        0 as answers_before,
        open_episodes.missed_checks,
        open_episodes.first_missed_at,
        open_episodes.first_missed_in,
        open_episodes.not_missed_at,
        open_episodes.episode_number
    from {{ this }} as open_episodes
    inner join (
        select distinct
            tenant,
            machine_id
        from answers_to_read
        where is_new
    ) as machines_with_news
        on open_episodes.tenant = machines_with_news.tenant
        and open_episodes.machine_id = machines_with_news.machine_id
    where open_episodes.installed_in is null

    {% endif %}

),

-- Believed answers before it that did not name the update: the same number for all of an unbroken run.
runs_of_answers as (

    select
        *,
        answers_before - coalesce(sum(believed) over (
            partition by tenant, machine_id, kb_id
            order by sweep
            rows between unbounded preceding and 1 preceding
        ), 0) as run_number
    from missed_answers

),

runs as (

    select
        tenant,
        machine_id,
        kb_id,
        min(sweep) as first_sweep,
        max(sweep) as last_sweep,
        sum(missed_checks) as missed_checks,
        max(first_missed_at) as first_missed_at,
        max(first_missed_in) as first_missed_in,
        max(not_missed_at) as not_missed_at,
        max(episode_number) as episode_number,
        sum(case when max(episode_number) is null then 1 else 0 end) over (
            partition by tenant, machine_id, kb_id
            order by run_number
            rows between unbounded preceding and current row
        ) as new_runs
    from runs_of_answers
    group by tenant, machine_id, kb_id, run_number

),

-- Those before the new runs.
earlier_episodes as (

    {% if goes_on %}

    select
        known.tenant,
        known.machine_id,
        known.kb_id,
        max(known.episode_number) as episode_number
    from {{ this }} as known
    inner join runs
        on known.tenant = runs.tenant
        and known.machine_id = runs.machine_id
        and known.kb_id = runs.kb_id
        and runs.episode_number is null
    group by known.tenant, known.machine_id, known.kb_id

    {% else %}

    select
        tenant,
        machine_id,
        kb_id,
        episode_number
    from runs
    where 1 = 0

    {% endif %}

)

select
    runs.tenant,
    runs.machine_id,
    runs.kb_id,
    coalesce(runs.first_missed_at, first_answers.checked_at) as first_missed_at,
    last_answers.checked_at as last_missed_at,
    last_answers.next_answer_at as installed_by,
    case when runs.first_missed_in is null then first_answers.previous_answer_at else runs.not_missed_at end
        as not_missed_at,
    cast(runs.missed_checks as bigint) as missed_checks,
    coalesce(runs.first_missed_in, runs.first_sweep) as first_missed_in,
    runs.last_sweep as last_missed_in,
    last_answers.next_answer_in as installed_in,
    cast(coalesce(runs.episode_number, coalesce(earlier_episodes.episode_number, 0) + runs.new_runs) as bigint)
        as episode_number
from runs
inner join answers_with_neighbours as first_answers
    on runs.tenant = first_answers.tenant
    and runs.machine_id = first_answers.machine_id
    and runs.first_sweep = first_answers.sweep
inner join answers_with_neighbours as last_answers
    on runs.tenant = last_answers.tenant
    and runs.machine_id = last_answers.machine_id
    and runs.last_sweep = last_answers.sweep
left join earlier_episodes
    on runs.tenant = earlier_episodes.tenant
    and runs.machine_id = earlier_episodes.machine_id
    and runs.kb_id = earlier_episodes.kb_id

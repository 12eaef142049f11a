with

checks as (

    select * from {{ ref('stg_checks') }}

),

verdicts as (

    select * from {{ ref('stg_sweeps') }}

),

summed_checks as (

    select
        tenant,
        sweep,
        max(checked_at) as newest_checked_at,
        sum(case when outcome = 'answered' then 1 else 0 end) as answers,
        min(case when outcome = 'answered' then checked_at end) as first_answered_at,
        max(case when outcome = 'answered' then checked_at end) as last_answered_at,
        sum(case when outcome = 'answered' then {{ microseconds('checked_at') }} else 0 end) as sum_of_moments,
        sum(case when outcome = 'answered' then missing_kbs else 0 end) as missing_pairs
    from checks
    group by tenant, sweep

),

judged as (

    select
        summed_checks.*,
        -- A sweep without a verdict is believed until there is one.
        coalesce(not verdicts.is_believed, false) as is_unbelieved
    from summed_checks
    left join verdicts
        on summed_checks.tenant = verdicts.tenant
        and summed_checks.sweep = verdicts.sweep

),

-- Sweeps do not overlap, but for an export that is loaded again, and where clocks went backwards.
overlapping as (

    select
        one.tenant,
        one.sweep,
        sum(case when other.is_unbelieved then -other.sweep else other.sweep end) as sum_of_overlapping
    from judged as one
    inner join judged as other
        on one.tenant = other.tenant
        and one.sweep <> other.sweep
        and one.first_answered_at <= other.last_answered_at
        and one.last_answered_at >= other.first_answered_at
    group by one.tenant, one.sweep

)

select
    judged.tenant,
    judged.sweep,
    judged.newest_checked_at,
    judged.is_unbelieved,
    overlapping.sweep is not null as is_overlapping,
    cast(judged.answers as bigint) as answers,
    cast(judged.missing_pairs as bigint) as missing_pairs,
    cast(judged.sum_of_moments as numeric(38, 0)) as sum_of_moments,
    cast(coalesce(overlapping.sum_of_overlapping, 0) as numeric(38, 0)) as sum_of_overlapping
from judged
left join overlapping
    on judged.tenant = overlapping.tenant
    and judged.sweep = overlapping.sweep

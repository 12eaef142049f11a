with

sweeps as (

    select * from {{ ref('stg_sweeps') }}

),

with_previous as (

    select
        *,
        lag(began_at) over (partition by tenant order by sweep) as previous_began_at,
        lag(case when is_complete then missing_pairs end) over (
            partition by tenant order by sweep
        ) as previous_missing_pairs
    from sweeps

)

select
    tenant,
    sweep,
    source,
    began_at,
    ended_at,
    listing,
    listed_at,
    machines_listed,
    machines_asked,
    machines_answered,
    machines_not_found,
    machines_failed,
    machines_skipped,
    machines_not_in_export,
    missing_pairs,
    is_complete,
    is_believed,
    verdict,
    cast(machines_answered as double precision) / nullif(machines_asked, 0) as coverage_share,
    24 * {{ days_passed('began_at', 'ended_at') }} as hours,
    {{ days_passed('previous_began_at', 'began_at') }} as days_since_previous,
    case when is_complete then missing_pairs - previous_missing_pairs end as missing_pairs_change
from with_previous

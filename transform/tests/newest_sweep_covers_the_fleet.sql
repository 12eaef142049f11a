{{ config(severity='warn') }}

with

sweeps as (

    select
        *,
        row_number() over (partition by tenant order by sweep desc) as recency
    from {{ ref('sweep_log') }}

)

select
    tenant,
    sweep,
    is_complete,
    machines_asked,
    machines_answered,
    coverage_share
from sweeps
where
    recency = 1
    and (coverage_share < 0.95 or not is_complete)

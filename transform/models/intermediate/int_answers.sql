-- The checks are named twice, not in one CTE: PostgreSQL writes such a one down, and a reader's filter goes no further.
with

sweeps as (

    select * from {{ ref('int_sweeps') }}

),

-- An export that is loaded again tells of the same moment.
told_again as (

    select
        checks.tenant,
        checks.machine_id,
        checks.sweep,
        row_number() over (
            partition by checks.tenant, checks.machine_id, checks.checked_at
            order by sweeps.is_unbelieved asc, checks.sweep desc
        ) as preference
    from {{ ref('stg_checks') }} as checks
    inner join sweeps
        on checks.tenant = sweeps.tenant
        and checks.sweep = sweeps.sweep
        and sweeps.is_overlapping
    where checks.outcome = 'answered'

)

select
    checks.tenant,
    checks.machine_id,
    checks.sweep,
    checks.checked_at,
    checks.missing_kbs,
    checks.missing_kb_ids,
    coalesce(sweeps.is_unbelieved, false) as is_unbelieved
from {{ ref('stg_checks') }} as checks
left join sweeps
    on checks.tenant = sweeps.tenant
    and checks.sweep = sweeps.sweep
left join told_again
    on checks.tenant = told_again.tenant
    and checks.machine_id = told_again.machine_id
    and checks.sweep = told_again.sweep
where
    checks.outcome = 'answered'
    and coalesce(told_again.preference, 1) = 1

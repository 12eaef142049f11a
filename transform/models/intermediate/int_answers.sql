with

checks as (

    select * from {{ ref('stg_checks') }}
    where outcome = 'answered'

),

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
    from checks
    inner join sweeps
        on checks.tenant = sweeps.tenant
        and checks.sweep = sweeps.sweep
        and sweeps.is_overlapping

)

select
    checks.tenant,
    checks.machine_id,
    checks.sweep,
    checks.checked_at,
    checks.missing_kbs,
    checks.missing_kb_ids,
    coalesce(sweeps.is_unbelieved, false) as is_unbelieved
from checks
left join sweeps
    on checks.tenant = sweeps.tenant
    and checks.sweep = sweeps.sweep
left join told_again
    on checks.tenant = told_again.tenant
    and checks.machine_id = told_again.machine_id
    and checks.sweep = told_again.sweep
where coalesce(told_again.preference, 1) = 1

with

checks as (

    select * from {{ ref('stg_checks') }}

)

select
    machine_id,
    checked_at,
    sweep,
    missing_kbs
from checks
where outcome = 'answered'

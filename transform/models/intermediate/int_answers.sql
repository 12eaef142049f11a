with

answers as (

    select * from {{ ref('stg_checks') }}
    where outcome = 'answered'

)

-- An export that is loaded again in another sweep answers at the same moment as before: that is one answer.
select
    answers.machine_id,
    answers.checked_at,
    answers.sweep,
    answers.missing_kbs
from answers
left join answers as later_sweeps
    on answers.machine_id = later_sweeps.machine_id
    and answers.checked_at = later_sweeps.checked_at
    and answers.sweep < later_sweeps.sweep
where later_sweeps.machine_id is null

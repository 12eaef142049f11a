-- Made after the history, out of the table that it was made of: what the history knows.
-- depends_on: {{ ref('int_kb_episodes') }}
with

sweeps as (

    select * from {{ ref('int_sweeps') }}

)

select
    tenant,
    sweep,
    is_unbelieved,
    answers,
    missing_pairs,
    sum_of_moments,
    sum_of_overlapping
from sweeps

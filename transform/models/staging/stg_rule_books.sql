with

rule_books as (

    select * from {{ ref('rule_books') }}

)

-- In a seed of one's own a column without a value has become an integer.
select
    rule_book,
    rule_id,
    clock,
    {{ severity_rank('cast(min_severity as ' ~ dbt.type_string() ~ ')') }} as min_severity_rank,
    cast(in_kev as boolean) as in_kev,
    cast(is_exploited as boolean) as is_exploited,
    cast(is_exposed as boolean) as is_exposed,
    cast(is_automatable as boolean) as is_automatable,
    lower(cast(technical_impact as {{ dbt.type_string() }})) as technical_impact,
    cast(is_assessed as boolean) as is_assessed,
    cast(kev_forensic as boolean) as kev_forensic,
    cast(days as integer) as days,
    coalesce(cast(forensic_triage as boolean), false) as forensic_triage
from rule_books

with

deadlines as (

    select * from {{ ref('deadlines') }}

)

-- In a seed of one's own a column without a value has become an integer.
select
    deadline_id,
    cast(min_cve_addressed as bigint) as min_cve_addressed,
    {{ severity_rank('cast(min_severity as ' ~ dbt.type_string() ~ ')') }} as min_severity_rank,
    cast(rbac_group_name as {{ dbt.type_string() }}) as rbac_group_name,
    cast(machine_tag as {{ dbt.type_string() }}) as machine_tag,
    min_cve_addressed is null and min_severity is null as is_for_any_kb,
    cast(days as integer) as days
from deadlines

with

source as (

    {{ every_tenant('missing_kbs_checks', ['machine_id', 'sweep', 'checked_at', 'outcome', 'missing_kbs']) }}

)

select
    tenant,
    machine_id,
    cast(sweep as bigint) as sweep,
    checked_at,
    outcome,
    cast(missing_kbs as bigint) as missing_kbs
from source

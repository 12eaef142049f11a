with

source as (

    {{ every_tenant(
        'missing_kbs_checks',
        ['machine_id', 'sweep', 'checked_at', 'outcome', 'missing_kbs', 'missing_kb_ids'],
        later={'reason': dbt.type_string(), 'last_seen': dbt.type_timestamp()}
    ) }}

)

select
    tenant,
    machine_id,
    cast(sweep as bigint) as sweep,
    checked_at,
    outcome,
    reason,
    last_seen,
    cast(missing_kbs as bigint) as missing_kbs,
    missing_kb_ids
from source

with

source as (

    {{ every_tenant('missing_kbs', [
        'machine_id', 'id', 'name', 'url', 'cve_addressed', 'first_seen_at', 'checked_at'
    ]) }}

)

select
    machine_id,
    id as kb_id,
    name,
    url,
    cast(cve_addressed as bigint) as cve_addressed,
    first_seen_at,
    checked_at
from source

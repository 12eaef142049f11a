with

source as (

    {{ every_tenant(
        'missing_kbs',
        ['machine_id', 'id', 'name', 'url', 'cve_addressed', 'first_seen_at', 'checked_at'],
        later={'sweep': dbt.type_bigint()}
    ) }}

)

select
    tenant,
    machine_id,
    id as kb_id,
    name,
    url,
    cast(cve_addressed as bigint) as cve_addressed,
    -- Before that it is no date: Defender says the year 1 where it does not know.
    case when first_seen_at >= cast('2000-01-01' as {{ dbt.type_timestamp() }}) then first_seen_at end as first_seen_at,
    checked_at,
    -- A sweep's version is the second it began, unless clocks went backwards: rows of an earlier version find a place.
    coalesce(cast(sweep as bigint), cast(floor({{ microseconds('checked_at') }} / 1000000) as bigint)) as sweep
from source

{%- set moment = dbt.type_timestamp() -%}
{%- set integer = dbt.type_bigint() -%}
{%- set text = dbt.type_string() -%}
{%- set boolean = dbt.type_boolean() -%}
with

source as (

    {{ every_tenant('sweeps', [], optional=true, later={
        'sweep': integer, 'source': text, 'began_at': moment, 'ended_at': moment,
        'listing': integer, 'listed_at': moment, 'machines_listed': integer,
        'machines_asked': integer, 'machines_answered': integer, 'machines_not_found': integer,
        'machines_failed': integer, 'machines_skipped': integer, 'machines_not_in_export': integer,
        'missing_pairs': integer, 'is_complete': boolean, 'is_believed': boolean, 'verdict': text
    }) }}

)

select
    tenant,
    cast(sweep as bigint) as sweep,
    source,
    began_at,
    ended_at,
    cast(listing as bigint) as listing,
    listed_at,
    cast(machines_listed as bigint) as machines_listed,
    cast(machines_asked as bigint) as machines_asked,
    cast(machines_answered as bigint) as machines_answered,
    cast(machines_not_found as bigint) as machines_not_found,
    cast(machines_failed as bigint) as machines_failed,
    cast(machines_skipped as bigint) as machines_skipped,
    cast(machines_not_in_export as bigint) as machines_not_in_export,
    cast(missing_pairs as bigint) as missing_pairs,
    is_complete,
    is_believed,
    verdict
from source

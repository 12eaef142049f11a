with

source as (

    {{ every_tenant('machines', ['id', 'machine_tags']) }}

),

unnested as (

    {{ unnest_array('source', ['tenant', 'id'], 'machine_tags', 'machine_tag') }}

)

select distinct
    tenant,
    id as machine_id,
    machine_tag
from unnested

with

source as (

    {{ every_tenant('missing_kbs_checks', ['machine_id', 'sweep', 'missing_kb_ids']) }}

)

{{ unnest_array('source', ['machine_id', 'cast(sweep as bigint) as sweep'], 'missing_kb_ids', 'kb_id') }}

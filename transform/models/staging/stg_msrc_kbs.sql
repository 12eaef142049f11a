{%- set text = dbt.type_string() -%}
{%- set array = array_type() -%}
with

source as (

    {{ every_tenant('msrc_kbs', [], optional=true, later={
        'kb_id': text, 'document_id': text, 'document_month': text, 'cves': dbt.type_bigint(), 'published_on': text,
        'supersedes': array, 'sub_types': array, 'product_ids': array, 'products': array,
        'restart_required': text, 'url': text, 'read_at': dbt.type_timestamp()
    }) }}

),

-- Of each document the newest reading counts, whichever tenant has it.
ranked as (

    select
        *,
        max(read_at) over (partition by document_id) as newest_read_at,
        row_number() over (partition by document_id, kb_id order by read_at desc, tenant asc) as place
    from source

)

select
    kb_id,
    document_id,
    cast(document_month as date) as document_month,
    cast(cves as bigint) as cves,
    cast(published_on as date) as published_on,
    supersedes,
    sub_types,
    product_ids,
    products,
    restart_required,
    read_at
from ranked
where
    read_at = newest_read_at
    and place = 1

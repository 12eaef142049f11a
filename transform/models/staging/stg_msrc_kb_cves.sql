{%- set text = dbt.type_string() -%}
with

source as (

    {{ every_tenant('msrc_kb_cves', [], optional=true, later={
        'kb_id': text, 'cve_id': text, 'document_id': text, 'read_at': dbt.type_timestamp()
    }) }}

),

newest as (

    select
        document_id,
        max(read_at) as read_at
    from source
    group by document_id

)

-- Advisories (ADV…) are none.
select distinct
    source.kb_id,
    source.cve_id
from source
inner join newest
    on source.document_id = newest.document_id
    and source.read_at = newest.read_at
where source.cve_id like 'CVE-%'

{%- set text = dbt.type_string() -%}
{%- set boolean = dbt.type_boolean() -%}
with

source as (

    {{ every_tenant('msrc_cves', [], optional=true, later={
        'id': text, 'severity': text, 'exploited': boolean, 'publicly_disclosed': boolean,
        'document_id': text, 'read_at': dbt.type_timestamp()
    }) }}

),

newest as (

    select
        document_id,
        max(read_at) as read_at
    from source
    group by document_id

)

-- One that two documents name is as bad as the worse of them says.
select
    source.id as cve_id,
    max({{ severity_rank('source.severity') }}) as severity_rank,
    max(case when source.exploited then 1 when not source.exploited then 0 end) = 1 as is_exploited,
    max(case when source.publicly_disclosed then 1 when not source.publicly_disclosed then 0 end) = 1 as is_disclosed
from source
inner join newest
    on source.document_id = newest.document_id
    and source.read_at = newest.read_at
where source.id like 'CVE-%'
group by source.id

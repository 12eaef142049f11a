{%- set text = dbt.type_string() -%}
{%- set boolean = dbt.type_boolean() -%}
with

source as (

    {{ every_tenant('kev', [], optional=true, later={
        'cve_id': text, 'added_on': text, 'due_on': text, 'ransomware': boolean, 'forensic_triage': boolean,
        'read_at': dbt.type_timestamp()
    }) }}

),

-- The newest reading is the whole catalogue: what is not in it was taken back.
newest as (

    select max(read_at) as read_at from source

)

select
    source.cve_id,
    min(cast(source.added_on as date)) as added_on,
    min(cast(source.due_on as date)) as due_on,
    max(case when source.ransomware then 1 when not source.ransomware then 0 end) = 1 as is_ransomware,
    max(case when source.forensic_triage then 1 when not source.forensic_triage then 0 end) = 1 as needs_forensic_triage
from source
inner join newest on source.read_at = newest.read_at
group by source.cve_id

{%- set text = dbt.type_string() -%}
with

source as (

    {{ every_tenant('ssvc', [], optional=true, later={
        'cve_id': text, 'automatable': text, 'technical_impact': text
    }) }}

),

worded as (

    select
        upper(trim(cve_id)) as cve_id,
        lower(trim(cast(automatable as {{ text }}))) as automatable,
        lower(trim(cast(technical_impact as {{ text }}))) as technical_impact
    from source

)

-- Where tenants differ, the worse.
select
    cve_id,
    max(case when automatable in ('yes', 'true') then 1 when automatable in ('no', 'false') then 0 end) = 1
        as is_automatable,
    max(case when technical_impact in ('total', 'partial') then technical_impact end) as technical_impact
from worded
where cve_id is not null
group by cve_id

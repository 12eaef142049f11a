{%- set exposed_tags = [var('exposed_tags')] if var('exposed_tags') is string else var('exposed_tags') -%}
{%- set exposed_tags = exposed_tags | map('replace', "'", "''") -%}
with

machines as (

    select * from {{ ref('int_machines') }}

),

fitting as (

    select
        tenant,
        machine_id,
        {{ dbt.listagg('deadline_id', "' '", 'order by deadline_id') }} as deadline_ids
    from {{ ref('int_machine_deadlines') }}
    group by tenant, machine_id

),

exposed as (

    select distinct
        tenant,
        machine_id
    from {{ ref('stg_machine_tags') }}
    where machine_tag in ('{{ exposed_tags | join("', '") }}')

),

classified as (

    select
        machines.tenant,
        machines.machine_id,
        exposed.machine_id is not null as is_exposed,
        dense_rank() over (order by fitting.deadline_ids asc, exposed.machine_id is not null asc) as machine_class
    from machines
    left join fitting
        on machines.tenant = fitting.tenant
        and machines.machine_id = fitting.machine_id
    left join exposed
        on machines.tenant = exposed.tenant
        and machines.machine_id = exposed.machine_id

)

select
    tenant,
    machine_id,
    is_exposed,
    machine_class,
    row_number() over (partition by machine_class order by tenant asc, machine_id asc) = 1 as is_first
from classified

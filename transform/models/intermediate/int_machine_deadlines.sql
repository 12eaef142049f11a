with

machines as (

    select * from {{ ref('int_machines') }}

),

machine_tags as (

    select * from {{ ref('stg_machine_tags') }}

),

deadlines as (

    select * from {{ ref('stg_deadlines') }}

)

select
    machines.tenant,
    machines.machine_id,
    deadlines.deadline_id,
    deadlines.min_cve_addressed,
    deadlines.min_severity_rank,
    deadlines.is_for_any_kb,
    deadlines.days
from machines
cross join deadlines
left join machine_tags
    on machines.tenant = machine_tags.tenant
    and machines.machine_id = machine_tags.machine_id
    and deadlines.machine_tag = machine_tags.machine_tag
where
    (deadlines.rbac_group_name is null or deadlines.rbac_group_name = machines.rbac_group_name)
    and (deadlines.machine_tag is null or machine_tags.machine_tag is not null)

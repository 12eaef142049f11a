with

episodes as (

    select * from {{ ref('int_kb_episodes') }}

),

machine_kbs as (

    select * from {{ ref('int_machine_kbs') }}

),

kbs as (

    select * from {{ ref('int_kbs') }}

),

facts as (

    select * from {{ ref('int_kb_facts') }}

),

classes as (

    select * from {{ ref('int_machine_classes') }}

),

pairs as (

    select
        tenant,
        machine_id,
        kb_id
    from episodes
    group by tenant, machine_id, kb_id

)

select
    pairs.tenant,
    pairs.machine_id,
    pairs.kb_id,
    machine_kbs.first_seen_at,
    coalesce(machine_kbs.cve_addressed, kbs.cve_addressed) as cve_addressed,
    facts.severity_rank,
    classes.machine_class
from pairs
left join machine_kbs
    on pairs.tenant = machine_kbs.tenant
    and pairs.machine_id = machine_kbs.machine_id
    and pairs.kb_id = machine_kbs.kb_id
left join kbs on pairs.kb_id = kbs.kb_id
left join facts on pairs.kb_id = facts.kb_id
left join classes
    on pairs.tenant = classes.tenant
    and pairs.machine_id = classes.machine_id

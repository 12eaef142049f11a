with

machines as (

    select * from {{ ref('machine_compliance') }}
    where
        is_active
        and is_assessed

),

machine_tags as (

    select * from {{ ref('stg_machine_tags') }}

),

segments as (

    select tenant, machine_id, 'all' as segment_kind, 'all' as segment from machines
    union all
    select tenant, machine_id, 'platform', coalesce(os_platform, '(none)') from machines
    union all
    select tenant, machine_id, 'group', coalesce(rbac_group_name, '(none)') from machines
    union all
    select tenant, machine_id, 'tag', machine_tag from machine_tags
    union all
    select tenant, machine_id, 'risk', coalesce(risk_score, '(none)') from machines
    union all
    select tenant, machine_id, 'exposure', coalesce(exposure_level, '(none)') from machines

),

summed as (

    select
        segments.segment_kind,
        segments.segment,
        count(*) as machines,
        sum(case when machines.is_known then 1 else 0 end) as known_machines,
        sum(case when machines.is_fully_patched then 1 else 0 end) as patched_machines,
        sum(coalesce(machines.missing_kbs, 0)) as missing_pairs,
        sum(coalesce(machines.missing_cves, 0)) as missing_cves,
        sum(coalesce(machines.overdue_kbs, 0)) as overdue_pairs
    from segments
    inner join machines
        on segments.tenant = machines.tenant
        and segments.machine_id = machines.machine_id
    group by segments.segment_kind, segments.segment

)

select
    segment_kind,
    segment,
    machines,
    cast(known_machines as bigint) as known_machines,
    cast(patched_machines as bigint) as patched_machines,
    cast(patched_machines as double precision) / nullif(known_machines, 0) as patched_share,
    cast(missing_pairs as bigint) as missing_pairs,
    cast(missing_cves as bigint) as missing_cves,
    cast(overdue_pairs as bigint) as overdue_pairs
from summed

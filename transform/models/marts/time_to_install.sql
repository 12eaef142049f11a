with

machines as (

    select * from {{ ref('int_machines') }}

),

installs as (

    select
        tenant,
        machine_id,
        kb_id,
        installed_by,
        days_missing
    from {{ ref('kb_episodes') }}
    where
        status = 'installed'
        and first_missed_at_is_known

),

segments as (

    select 'all' as segment_kind, 'all' as segment, days_missing from installs
    union all
    select 'kb', kb_id, days_missing from installs
    union all
    select 'group', coalesce(machines.rbac_group_name, '(none)'), installs.days_missing
    from installs
    left join machines
        on installs.tenant = machines.tenant
        and installs.machine_id = machines.machine_id
    union all
    select 'month', {{ year_and_month('installed_by') }}, days_missing from installs

)

select
    segment_kind,
    segment,
    count(*) as installs,
    avg(days_missing) as mean_days,
    percentile_cont(0.5) within group (order by days_missing) as median_days
from segments
group by segment_kind, segment

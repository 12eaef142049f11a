{%- set segments = {
    'all': 'everything',
    'kb': 'kb_id',
    'group': 'rbac_group_name',
    'month': 'install_month'
} -%}
with

machines as (

    select * from {{ ref('int_machines') }}

),

installs as (

    select
        'all' as everything,
        episodes.kb_id,
        coalesce(machines.rbac_group_name, '(none)') as rbac_group_name,
        {{ year_and_month('episodes.installed_by') }} as install_month,
        episodes.days_missing
    from {{ ref('kb_episodes') }} as episodes
    left join machines
        on episodes.tenant = machines.tenant
        and episodes.machine_id = machines.machine_id
    where
        episodes.status = 'installed'
        and episodes.first_missed_at_is_known

)

-- Each by itself: all in one group-by is more to sort.
{% for segment_kind, segment in segments.items() %}
{% if not loop.first -%}
union all
{% endif -%}
select
    '{{ segment_kind }}' as segment_kind,
    {{ segment }} as segment,
    count(*) as installs,
    avg(days_missing) as mean_days,
    percentile_cont(0.5) within group (order by days_missing) as median_days
from installs
group by {{ segment }}
{% endfor %}

with

set_installs as (

    select * from {{ ref('int_set_installs') }}

),

-- Most close themselves alone, and need no list.
with_others as (

    select distinct
        set_id,
        kb_id
    from set_installs
    where closed_kb_id <> kb_id

),

lists as (

    select
        set_installs.set_id,
        set_installs.kb_id,
        count(*) as closes_kbs,
        {{ dbt.listagg('set_installs.closed_kb_id', "' '", 'order by set_installs.closed_kb_id') }} as closes_kb_ids,
        max(case when set_installs.is_assumed then 1 else 0 end) = 1 as is_assumed
    from set_installs
    inner join with_others
        on set_installs.set_id = with_others.set_id
        and set_installs.kb_id = with_others.kb_id
    group by set_installs.set_id, set_installs.kb_id

),

closings as (

    select
        set_installs.set_id,
        set_installs.kb_id,
        coalesce(lists.closes_kbs, 1) as closes_kbs,
        coalesce(lists.closes_kb_ids, set_installs.kb_id) as closes_kb_ids,
        coalesce(lists.is_assumed, false) as is_assumed
    from set_installs
    left join lists
        on set_installs.set_id = lists.set_id
        and set_installs.kb_id = lists.kb_id
    where set_installs.closed_kb_id = set_installs.kb_id

),

-- What an update closes is the same on most machines: it is looked up once.
numbered as (

    select
        *,
        dense_rank() over (order by kb_id, closes_kb_ids) as install_id,
        row_number() over (partition by kb_id, closes_kb_ids order by set_id) = 1 as is_first
    from closings

),

closed as (

    select
        numbered.install_id,
        set_installs.closed_kb_id as kb_id
    from numbered
    inner join set_installs
        on numbered.set_id = set_installs.set_id
        and numbered.kb_id = set_installs.kb_id
    where numbered.is_first

),

of_kbs as (

    select
        closed.install_id,
        max(facts.severity_rank) as severity_rank,
        max(facts.max_epss) as max_epss,
        count(facts.cves) as kbs_with_cves,
        count(facts.kev_cves) as kbs_with_kev,
        count(facts.attacked_cves) as kbs_with_attacked
    from closed
    inner join {{ ref('int_kb_facts') }} as facts on closed.kb_id = facts.kb_id
    group by closed.install_id

),

closed_cves as (

    select
        closed.install_id,
        closed_cves.cve_id,
        max(case when closed_cves.is_msrc then 1 else 0 end) as is_msrc
    from closed
    inner join {{ ref('int_closed_cves') }} as closed_cves on closed.kb_id = closed_cves.kb_id
    group by closed.install_id, closed_cves.cve_id

),

of_cves as (

    select
        closed_cves.install_id,
        sum(closed_cves.is_msrc) as cves,
        sum(case when cves.in_kev then 1 else 0 end) as kev_cves,
        sum(case when cves.is_attacked then 1 else 0 end) as attacked_cves
    from closed_cves
    inner join {{ ref('int_cves') }} as cves on closed_cves.cve_id = cves.cve_id
    group by closed_cves.install_id

)

-- A count is null where it is of none of the updates known.
select
    numbered.set_id,
    numbered.kb_id,
    numbered.closes_kbs,
    numbered.closes_kb_ids,
    numbered.is_assumed,
    cast(case when of_kbs.kbs_with_cves > 0 then coalesce(of_cves.cves, 0) end as bigint) as cves,
    cast(case when of_kbs.kbs_with_kev > 0 then coalesce(of_cves.kev_cves, 0) end as bigint) as kev_cves,
    cast(case when of_kbs.kbs_with_attacked > 0 then coalesce(of_cves.attacked_cves, 0) end as bigint)
        as attacked_cves,
    of_kbs.severity_rank,
    of_kbs.max_epss
from numbered
inner join of_kbs on numbered.install_id = of_kbs.install_id
left join of_cves on numbered.install_id = of_cves.install_id

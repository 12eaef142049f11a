with

episodes as (

    select * from {{ ref('kb_episodes') }}

),

kbs as (

    select * from {{ ref('int_kbs') }}

),

missed_pairs as (

    select
        kb_id,
        max(case when status = 'open' then 1 else 0 end) as is_missing,
        min(first_missed_at) as first_missed_at
    from episodes
    group by tenant, machine_id, kb_id

),

missed as (

    select
        kb_id,
        sum(is_missing) as machines_missing,
        count(*) as machines_ever,
        min(first_missed_at) as first_missed_at
    from missed_pairs
    group by kb_id

)

select
    missed.kb_id,
    kbs.name,
    kbs.url,
    kbs.cve_addressed,
    cast(missed.machines_missing as bigint) as machines_missing,
    missed.machines_ever,
    missed.first_missed_at,
    {{ severity_of_rank('kbs.worst_severity_rank') }} as worst_severity,
    kbs.worst_cvss_score,
    kbs.severe_cves,
    kbs.exploited_cves
from missed
left join kbs on missed.kb_id = kbs.kb_id

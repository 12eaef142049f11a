with

episodes as (

    select * from {{ ref('kb_episodes') }}

),

kbs as (

    select * from {{ ref('int_kbs') }}

),

facts as (

    select * from {{ ref('kbs') }}

),

newest as (

    select max(newest_checked_at) as checked_at from {{ ref('int_newest') }}

),

replacing as (

    select
        replacements.kb_id,
        replacements.replaced_by,
        row_number() over (
            partition by replacements.kb_id
            order by coalesce(kbs.released_on, cast('1970-01-01' as date)) desc, replacements.replaced_by desc
        ) as place
    from {{ ref('int_kb_replacements') }} as replacements
    left join facts as kbs on replacements.replaced_by = kbs.kb_id

),

-- A machine has one first episode of an update, and one that is open at most.
missed as (

    select
        kb_id,
        sum(case when status = 'open' then 1 else 0 end) as machines_missing,
        sum(case when episode_number = 1 then 1 else 0 end) as machines_ever,
        min(first_missed_at) as first_missed_at
    from episodes
    group by kb_id

)

select
    missed.kb_id,
    kbs.name,
    kbs.url,
    kbs.cve_addressed,
    cast(missed.machines_missing as bigint) as machines_missing,
    cast(missed.machines_ever as bigint) as machines_ever,
    missed.first_missed_at,
    facts.severity as worst_severity,
    kbs.worst_cvss_score,
    kbs.severe_cves,
    kbs.exploited_cves,
    facts.released_on,
    facts.released_on_is_exact,
    {{ days_passed(midnight('facts.released_on'), 'newest.checked_at') }} as days_since_release,
    facts.cves,
    facts.severity,
    facts.attacked_cves,
    facts.kev_cves,
    facts.ransomware_cves,
    facts.disclosed_cves,
    facts.kev_due_on,
    facts.max_epss,
    facts.restart_required,
    replacing.replaced_by as superseded_by
from missed
cross join newest
left join kbs on missed.kb_id = kbs.kb_id
left join facts on missed.kb_id = facts.kb_id
left join replacing
    on missed.kb_id = replacing.kb_id
    and replacing.place = 1

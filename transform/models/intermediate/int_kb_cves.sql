with

kb_cves as (

    select * from {{ ref('stg_kb_cves') }}

),

-- Tenants may differ in what they know of a CVE.
cves as (

    select
        kb_id,
        cve_id,
        max(severity_rank) as severity_rank,
        max(cvss_score) as cvss_score,
        max(case when exploitability_level <> 'NoExploit' then 1 else 0 end) as is_exploited
    from kb_cves
    group by kb_id, cve_id

)

select
    kb_id,
    max(severity_rank) as worst_severity_rank,
    max(cvss_score) as worst_cvss_score,
    count(*) as known_cves,
    cast(sum(case when severity_rank >= {{ severity_rank("'high'") }} then 1 else 0 end) as bigint) as severe_cves,
    cast(sum(is_exploited) as bigint) as exploited_cves
from cves
group by kb_id

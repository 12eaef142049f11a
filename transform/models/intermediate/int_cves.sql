with

cves as (

    select distinct cve_id from {{ ref('int_closed_cves') }}

),

exported as (

    select
        cve_id,
        max(severity_rank) as severity_rank
    from {{ ref('stg_kb_cves') }}
    group by cve_id

),

msrc_cves as (

    select * from {{ ref('stg_msrc_cves') }}

),

kev as (

    select * from {{ ref('stg_kev') }}

),

kev_catalogue as (

    select count(*) > 0 as is_read from kev

),

epss as (

    select * from {{ ref('stg_epss') }}

),

ssvc as (

    select * from {{ ref('stg_ssvc') }}

)

select
    cves.cve_id,
    msrc_cves.severity_rank as msrc_severity_rank,
    coalesce(exported.severity_rank, msrc_cves.severity_rank) as severity_rank,
    coalesce(msrc_cves.is_exploited, false) or kev.cve_id is not null as is_attacked,
    coalesce(msrc_cves.is_disclosed, false) as is_disclosed,
    case when kev_catalogue.is_read then kev.cve_id is not null end as in_kev,
    kev.added_on as kev_added_on,
    kev.due_on as kev_due_on,
    coalesce(kev.is_ransomware, false) as is_ransomware,
    coalesce(kev.needs_forensic_triage, false) as kev_forensic,
    epss.epss,
    ssvc.is_automatable,
    ssvc.technical_impact,
    ssvc.is_automatable is not null and ssvc.technical_impact is not null as is_assessed
from cves
cross join kev_catalogue
left join exported on cves.cve_id = exported.cve_id
left join msrc_cves on cves.cve_id = msrc_cves.cve_id
left join kev on cves.cve_id = kev.cve_id
left join epss on cves.cve_id = epss.cve_id
left join ssvc on cves.cve_id = ssvc.cve_id

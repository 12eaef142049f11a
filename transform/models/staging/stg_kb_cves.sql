with

source as (

    {{ every_tenant(
        'kb_cves', ['kb_id', 'cve_id', 'severity', 'cvss_score', 'exploitability_level'], optional=true
    ) }}

)

select
    tenant,
    kb_id,
    cve_id,
    severity,
    {{ severity_rank('severity') }} as severity_rank,
    cast(cvss_score as double precision) as cvss_score,
    exploitability_level
from source

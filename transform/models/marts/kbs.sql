with

facts as (

    select * from {{ ref('int_kb_facts') }}

)

select
    kb_id,
    released_on,
    released_on_is_exact,
    cves,
    {{ severity_of_rank('severity_rank') }} as severity,
    attacked_cves,
    kev_cves,
    ransomware_cves,
    disclosed_cves,
    kev_due_on,
    max_epss,
    restart_required
from facts

{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='kb_id',
        on_schema_change='fail',
        full_refresh=false
    )
}}

with

kb_cves as (

    select * from {{ ref('int_kb_cves') }}

),

answers as (

    select
        kb_id,
        sweep,
        max(checked_at) as checked_at
    from {{ ref('stg_missing_kbs') }}
    group by kb_id, sweep

),

newest_sweeps as (

    select
        kb_id,
        max(sweep) as sweep
    from answers
    group by kb_id

),

newest_answers as (

    select answers.*
    from answers
    inner join newest_sweeps
        on answers.kb_id = newest_sweeps.kb_id
        and answers.sweep = newest_sweeps.sweep

),

-- The rows of an export share its moment, and may count fewer CVEs on one machine than on another.
kbs as (

    select
        missing_kbs.kb_id,
        max(missing_kbs.name) as name,
        max(missing_kbs.url) as url,
        max(missing_kbs.cve_addressed) as cve_addressed
    from {{ ref('stg_missing_kbs') }} as missing_kbs
    inner join newest_answers
        on missing_kbs.kb_id = newest_answers.kb_id
        and missing_kbs.sweep = newest_answers.sweep
        and missing_kbs.checked_at = newest_answers.checked_at
    group by missing_kbs.kb_id

),

kbs_with_cves as (

    select
        kbs.*,
        kb_cves.worst_severity_rank,
        kb_cves.worst_cvss_score,
        kb_cves.known_cves,
        kb_cves.severe_cves,
        kb_cves.exploited_cves
    from kbs
    left join kb_cves on kbs.kb_id = kb_cves.kb_id

)

{% if is_incremental() %}

select
    new.kb_id,
    new.name,
    new.url,
    new.cve_addressed,
    case when new.known_cves is null then kept.worst_severity_rank else new.worst_severity_rank end
        as worst_severity_rank,
    case when new.known_cves is null then kept.worst_cvss_score else new.worst_cvss_score end as worst_cvss_score,
    coalesce(new.known_cves, kept.known_cves) as known_cves,
    coalesce(new.severe_cves, kept.severe_cves) as severe_cves,
    coalesce(new.exploited_cves, kept.exploited_cves) as exploited_cves
from kbs_with_cves as new
left join {{ this }} as kept on new.kb_id = kept.kb_id

{% else %}

select * from kbs_with_cves

{% endif %}

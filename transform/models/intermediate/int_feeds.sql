select
    (select count(*) from {{ ref('stg_msrc_kbs') }}) as msrc_kbs,
    (select count(*) from {{ ref('stg_kev') }}) as kev_entries,
    (select count(*) from {{ ref('stg_epss') }}) as epss_scores

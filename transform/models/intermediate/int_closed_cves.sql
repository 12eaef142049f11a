with

msrc as (

    select * from {{ ref('stg_msrc_kb_cves') }}

),

msrc_kbs as (

    select distinct kb_id from {{ ref('stg_msrc_kbs') }}

),

exported as (

    select distinct
        kb_id,
        cve_id
    from {{ ref('stg_kb_cves') }}
    where cve_id like 'CVE-%'

)

-- Of an update that MSRC knows, MSRC says what it closes; of others the export.
select
    kb_id,
    cve_id,
    true as is_msrc
from msrc

union all

select
    exported.kb_id,
    exported.cve_id,
    false
from exported
left join msrc_kbs on exported.kb_id = msrc_kbs.kb_id
where msrc_kbs.kb_id is null

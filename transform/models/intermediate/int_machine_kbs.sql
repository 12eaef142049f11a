{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key=['tenant', 'machine_id', 'kb_id'],
        on_schema_change='fail',
        full_refresh=false,
        pre_hook='{{ tap_mde_kbs.name_tenants() }}'
    )
}}

-- For the hook.
-- depends_on: {{ ref('stg_checks') }}
with

missing_kbs as (

    select * from {{ ref('stg_missing_kbs') }}

)

{% if is_incremental() %}

select
    new.tenant,
    new.machine_id,
    new.kb_id,
    new.cve_addressed,
    case
        when new.first_seen_at < kept.first_seen_at then new.first_seen_at
        else coalesce(kept.first_seen_at, new.first_seen_at)
    end as first_seen_at
from missing_kbs as new
left join {{ this }} as kept
    on new.tenant = kept.tenant
    and new.machine_id = kept.machine_id
    and new.kb_id = kept.kb_id
where
    kept.machine_id is null
    or new.cve_addressed is distinct from kept.cve_addressed
    or new.first_seen_at < kept.first_seen_at
    or (new.first_seen_at is not null and kept.first_seen_at is null)

{% else %}

select
    tenant,
    machine_id,
    kb_id,
    cve_addressed,
    first_seen_at
from missing_kbs

{% endif %}

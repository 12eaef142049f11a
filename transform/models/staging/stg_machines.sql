with

source as (

    {{ every_tenant(
        'machines',
        [
            'id', 'computer_dns_name', 'os_platform', 'rbac_group_name', 'risk_score', 'exposure_level',
            'health_status', 'onboarding_status', 'last_seen', 'listed_at'
        ],
        later={'listing': dbt.type_bigint()}
    ) }}

)

select
    tenant,
    id as machine_id,
    computer_dns_name,
    os_platform,
    rbac_group_name,
    risk_score,
    exposure_level,
    health_status,
    onboarding_status,
    last_seen,
    listed_at,
    cast(listing as bigint) as listing
from source

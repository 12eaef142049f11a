with

listings as (

    select
        tenant,
        max(listed_at) as newest_listed_at
    from {{ ref('stg_machines') }}
    group by tenant

),

checks as (

    select
        tenant,
        max(sweep) as newest_sweep,
        max(checked_at) as newest_checked_at
    from {{ ref('stg_checks') }}
    group by tenant

)

select
    coalesce(listings.tenant, checks.tenant) as tenant,
    listings.newest_listed_at,
    checks.newest_sweep,
    checks.newest_checked_at
from listings
full outer join checks on listings.tenant = checks.tenant

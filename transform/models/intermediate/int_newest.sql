with

machines as (

    select * from {{ ref('stg_machines') }}

),

sweeps as (

    select * from {{ ref('int_sweeps') }}

),

listings as (

    select distinct
        tenant,
        listing,
        machines_listed
    from {{ ref('stg_sweeps') }}
    where listing is not null

),

newest_sweeps as (

    select
        tenant,
        max(sweep) as newest_sweep
    from sweeps
    group by tenant

),

-- Not whole yet: a target that was killed, or dbt during a load.
whole_listings as (

    select
        listings.tenant,
        listings.listing
    from listings
    left join machines
        on listings.tenant = machines.tenant
        and listings.listing <= machines.listing
    group by listings.tenant, listings.listing, listings.machines_listed
    having count(machines.machine_id) >= listings.machines_listed

),

newest_listings as (

    select
        tenant,
        max(listing) as newest_listing
    from whole_listings
    group by tenant

),

-- An earlier version gave listings no version: there the newest counts, whole or not.
listed_machines as (

    select
        tenant,
        max(listed_at) as newest_listed_at,
        count(listing) as machines_with_listing
    from machines
    group by tenant

),

-- Read once more, since DuckDB 1.2 gives no rows where an empty `listings` is in a union and joined to it.
named_tenants as (

    select tenant, 0 as has_listings from newest_sweeps
    union all
    select tenant, case when machines_with_listing > 0 then 1 else 0 end from listed_machines
    union all
    select tenant, 1 from {{ ref('stg_sweeps') }}
    where listing is not null

),

tenants as (

    select
        tenant,
        max(has_listings) as has_listings
    from named_tenants
    group by tenant

)

select
    tenants.tenant,
    newest_listings.newest_listing,
    listed_machines.newest_listed_at,
    newest_sweeps.newest_sweep,
    sweeps.newest_checked_at,
    tenants.has_listings = 1 as has_listings
from tenants
left join newest_listings on tenants.tenant = newest_listings.tenant
left join listed_machines on tenants.tenant = listed_machines.tenant
left join newest_sweeps on tenants.tenant = newest_sweeps.tenant
left join sweeps
    on newest_sweeps.tenant = sweeps.tenant
    and newest_sweeps.newest_sweep = sweeps.sweep

with

source as (

    {{ every_tenant('epss', [], optional=true, later={
        'cve_id': dbt.type_string(), 'epss': 'double precision', 'read_at': dbt.type_timestamp()
    }) }}

),

newest as (

    select max(read_at) as read_at from source

)

select
    source.cve_id,
    max(cast(source.epss as double precision)) as epss
from source
inner join newest on source.read_at = newest.read_at
group by source.cve_id

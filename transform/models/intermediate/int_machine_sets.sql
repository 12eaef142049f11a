with

episodes as (

    select * from {{ ref('kb_episodes') }}
    where status = 'open'

),

sets as (

    select
        tenant,
        machine_id,
        {{ dbt.listagg('kb_id', "' '", 'order by kb_id') }} as kb_ids
    from episodes
    group by tenant, machine_id

),

numbered as (

    select
        tenant,
        machine_id,
        dense_rank() over (order by kb_ids) as set_id
    from sets

)

select
    tenant,
    machine_id,
    set_id,
    row_number() over (partition by set_id order by tenant asc, machine_id asc) = 1 as is_first
from numbered

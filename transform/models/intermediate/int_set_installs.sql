with

sets as (

    select
        machine_sets.set_id,
        episodes.kb_id
    from {{ ref('int_machine_sets') }} as machine_sets
    inner join {{ ref('kb_episodes') }} as episodes
        on machine_sets.tenant = episodes.tenant
        and machine_sets.machine_id = episodes.machine_id
    where
        machine_sets.is_first
        and episodes.status = 'open'

),

replaced as (

    select
        older.set_id,
        older.kb_id,
        newer.kb_id as replaced_by,
        replacements.is_assumed
    from sets as older
    inner join {{ ref('int_kb_replacements') }} as replacements on older.kb_id = replacements.kb_id
    inner join sets as newer
        on older.set_id = newer.set_id
        and replacements.replaced_by = newer.kb_id

),

hidden as (

    select distinct
        set_id,
        kb_id
    from replaced

),

installs as (

    select
        sets.set_id,
        sets.kb_id
    from sets
    left join hidden
        on sets.set_id = hidden.set_id
        and sets.kb_id = hidden.kb_id
    where hidden.kb_id is null

)

-- An update closes what it replaces, and itself.
select
    set_id,
    kb_id,
    kb_id as closed_kb_id,
    false as is_assumed
from installs

union all

select
    installs.set_id,
    installs.kb_id,
    replaced.kb_id as closed_kb_id,
    replaced.is_assumed
from installs
inner join replaced
    on installs.set_id = replaced.set_id
    and installs.kb_id = replaced.replaced_by

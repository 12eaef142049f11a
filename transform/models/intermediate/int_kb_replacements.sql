{#- Each doubles the longest chain that is followed: 2 to the power of 7 is more than the 89 that were ever seen. -#}
{%- set doublings = 7 -%}
with

links_0 as (

    select * from {{ ref('int_kb_links') }}

),
{% for number in range(doublings) %}
links_{{ number + 1 }} as (

    select
        kb_id,
        replaced_by,
        min(is_assumed) as is_assumed
    from (
        select * from links_{{ number }}
        union all
        select
            older.kb_id,
            newer.replaced_by,
            greatest(older.is_assumed, newer.is_assumed) as is_assumed
        from links_{{ number }} as older
        inner join links_{{ number }} as newer on older.replaced_by = newer.kb_id
    ) as longer
    group by kb_id, replaced_by

),
{% endfor %}
missed as (

    select distinct kb_id from {{ ref('int_kb_episodes') }}

)

-- Of two that replace each other neither does.
select
    links.kb_id,
    links.replaced_by,
    links.is_assumed = 1 as is_assumed
from links_{{ doublings }} as links
inner join missed on links.kb_id = missed.kb_id
left join links_{{ doublings }} as back
    on links.kb_id = back.replaced_by
    and links.replaced_by = back.kb_id
where
    links.kb_id <> links.replaced_by
    and back.kb_id is null

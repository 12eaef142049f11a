{#- Forgets the machines whose last answer that the episodes know is no longer in the checks: after a kill it was
    replaced within its sweep. Run before the incremental build, which then builds their episodes anew. -#}
{% macro forget_replaced_answers() %}
    {%- if is_incremental() -%}
    delete from {{ this }}
    where machine_id in (
        select known.machine_id
        from (
            select machine_id, max(coalesce(installed_by, last_missed_at)) as known_until
            from {{ this }}
            group by machine_id
        ) as known
        left join {{ ref('int_answers') }} as answers
            on known.machine_id = answers.machine_id
            and known.known_until = answers.checked_at
        where answers.machine_id is null
    )
    {%- endif -%}
{% endmacro %}

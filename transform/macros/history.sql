{#- Whether the history goes on from the last build: it was made by this version, which writes down what it knows of each
    sweep. Else it is made anew. -#}
{% macro history_goes_on() %}
    {%- set goes_on = false -%}
    {%- if execute and is_incremental() -%}
        {%- set known_sweeps = load_relation(this.incorporate(path={'identifier': 'int_known_sweeps'})) -%}
        {%- set goes_on = known_sweeps is not none and tap_mde_kbs.has_column(this, 'episode_number') -%}
    {%- endif -%}
    {{- return(goes_on) -}}
{% endmacro %}


{#- Whether a table has a column. -#}
{% macro has_column(relation, column) %}
    {%- set names = adapter.get_columns_in_relation(relation) | map(attribute='name') | map('lower') | list -%}
    {{- return(column in names) -}}
{% endmacro %}


{#- Forgets the episodes of the machines whose past is not what it was; the build after it makes them anew.

    A sweep has changed when its answers or its verdict are not as the last build knew them: it went on, an answer was
    replaced, its rows or its verdict came late, an export was loaded again. Then a machine is forgotten if

    1. the answer that it is known until was replaced,
    2. a sweep before that, or its verdict, changed,
    3. that answer is not believed, and newer ones have come. -#}
{% macro forget_what_changed() %}
    {%- if is_incremental() and not tap_mde_kbs.history_goes_on() -%}
    delete from {{ this }}
    {%- elif is_incremental() -%}
    delete from {{ this }}
    where (tenant, machine_id) in (
        with

        known as (

            select
                tenant,
                machine_id,
                max(coalesce(installed_in, last_missed_in)) as known_sweep
            from {{ this }}
            group by tenant, machine_id

        ),

        sweeps as (

            select * from {{ ref('int_sweeps') }}

        ),

        changed as (

            select
                coalesce(sweeps.tenant, before.tenant) as tenant,
                coalesce(sweeps.sweep, before.sweep) as sweep,
                -- What a build made of it that broke off before it wrote that down, nobody knows.
                before.sweep is null
                or coalesce(sweeps.is_unbelieved, false) <> before.is_unbelieved as is_judged_anew
            from sweeps
            full outer join {{ this.incorporate(path={'identifier': 'int_known_sweeps'}) }} as before
                on sweeps.tenant = before.tenant
                and sweeps.sweep = before.sweep
            where
                sweeps.sweep is null
                or before.sweep is null
                or sweeps.is_unbelieved <> before.is_unbelieved
                or sweeps.answers <> before.answers
                or sweeps.sum_of_moments <> before.sum_of_moments
                or sweeps.missing_pairs <> before.missing_pairs
                or sweeps.sum_of_overlapping <> before.sum_of_overlapping

        ),

        -- Mostly none: the newest sweep is of no machine's past.
        changed_past as (

            select changed.*
            from changed
            inner join (
                select
                    tenant,
                    max(known_sweep) as known_sweep
                from known
                group by tenant
            ) as newest
                on changed.tenant = newest.tenant
                and changed.sweep <= newest.known_sweep

        ),

        changed_answers as (

            select answers.*
            from {{ ref('int_answers') }} as answers
            inner join changed
                on answers.tenant = changed.tenant
                and answers.sweep = changed.sweep

        ),

        -- What the episodes say of a machine's answer in a changed sweep.
        told as (

            select
                episodes.tenant,
                episodes.machine_id,
                changed.sweep,
                coalesce(episodes.installed_by, episodes.last_missed_at) as told_at
            from {{ this }} as episodes
            inner join changed_past as changed
                on episodes.tenant = changed.tenant
                and coalesce(episodes.installed_in, episodes.last_missed_in) = changed.sweep

        ),

        missed_at_last as (

            select
                known.tenant,
                known.machine_id,
                known.known_sweep,
                count(*) as missing_kbs
            from known
            inner join {{ this }} as episodes
                on known.tenant = episodes.tenant
                and known.machine_id = episodes.machine_id
                and known.known_sweep = episodes.last_missed_in
            group by known.tenant, known.machine_id, known.known_sweep

        )

        select
            told.tenant,
            told.machine_id
        from told
        left join changed_answers as answers
            on told.tenant = answers.tenant
            and told.machine_id = answers.machine_id
            and told.sweep = answers.sweep
            and told.told_at = answers.checked_at
        where answers.machine_id is null

        union all

        select
            answers.tenant,
            answers.machine_id
        from changed_answers as answers
        inner join known
            on answers.tenant = known.tenant
            and answers.machine_id = known.machine_id
            and answers.sweep = known.known_sweep
        left join missed_at_last
            on known.tenant = missed_at_last.tenant
            and known.machine_id = missed_at_last.machine_id
        where answers.missing_kbs <> coalesce(missed_at_last.missing_kbs, 0)

        union all

        select
            checks.tenant,
            checks.machine_id
        from {{ ref('stg_checks') }} as checks
        inner join changed_past as changed
            on checks.tenant = changed.tenant
            and checks.sweep = changed.sweep
        inner join known
            on checks.tenant = known.tenant
            and checks.machine_id = known.machine_id
            and checks.sweep <= known.known_sweep
        where
            checks.sweep < known.known_sweep
            or changed.is_judged_anew

        union all

        select
            known.tenant,
            known.machine_id
        from known
        inner join sweeps
            on known.tenant = sweeps.tenant
            and known.known_sweep = sweeps.sweep
            and sweeps.is_unbelieved
        inner join changed_answers as answers
            on known.tenant = answers.tenant
            and known.machine_id = answers.machine_id
            and known.known_sweep < answers.sweep
    )
    {%- endif -%}
{% endmacro %}


{#- Gives the rows of a table that an earlier version made their tenant, and takes dates of the year 1 from them. -#}
{% macro name_tenants() %}
    {%- if is_incremental() and not tap_mde_kbs.has_column(this, 'tenant') -%}
    alter table {{ this }} add column tenant {{ dbt.type_string() }};
    update {{ this }}
    set
        tenant = owners.tenant,
        first_seen_at = case when first_seen_at >= cast('2000-01-01' as {{ dbt.type_timestamp() }}) then first_seen_at end
    from (
        select
            machine_id,
            min(tenant) as tenant
        from {{ ref('stg_checks') }}
        group by machine_id
    ) as owners
    where {{ this.identifier }}.machine_id = owners.machine_id
    {%- endif -%}
{% endmacro %}

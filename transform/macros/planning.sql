{#- How PostgreSQL is to plan one model. Of tables that were made a moment ago, and of windows over them, it has no
    statistics: it expects a row, and goes in loops through millions of rows for each of millions. It compiles
    queries (JIT) for longer than they run, and sorts on disk what has room in memory. -#}
{% macro plan_without_statistics() %}
    {{- return(adapter.dispatch('plan_without_statistics', 'tap_mde_kbs')()) -}}
{% endmacro %}

{% macro default__plan_without_statistics() -%}
{%- endmacro %}

{% macro postgres__plan_without_statistics() -%}
    set local jit = off;
    set local enable_nestloop = off;
    set local enable_mergejoin = off;
    set local work_mem = '64MB'
{%- endmacro %}


{#- Counts a table that was just made, so that PostgreSQL plans by what is in it; it takes hundredths of the time. -#}
{% macro count_values() %}
    {{- return(adapter.dispatch('count_values', 'tap_mde_kbs')()) -}}
{% endmacro %}

{% macro default__count_values() -%}
{%- endmacro %}

{% macro postgres__count_values() -%}
    {%- if model.config.materialized != 'view' -%}
    analyze {{ this }}
    {%- endif -%}
{%- endmacro %}

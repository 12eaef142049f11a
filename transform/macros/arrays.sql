{#- A row for each item of an array of text, with the columns of its row that are named. Arrays are `text[]` in
    PostgreSQL, JSON in DuckDB and VARIANT in Snowflake, as the Singer targets create them. -#}
{% macro unnest_array(relation, columns, array, item) %}
    {{- return(adapter.dispatch('unnest_array', 'tap_mde_kbs')(relation, columns, array, item)) -}}
{% endmacro %}

{% macro postgres__unnest_array(relation, columns, array, item) %}
    select {{ columns | join(', ') }}, items.item as {{ item }}
    from {{ relation }}
    cross join lateral unnest({{ array }}) as items (item)
{%- endmacro %}

{% macro duckdb__unnest_array(relation, columns, array, item) %}
    select {{ columns | join(', ') }}, items.item as {{ item }}
    from {{ relation }}
    cross join unnest(from_json({{ array }}, '["VARCHAR"]')) as items (item)
{%- endmacro %}

{% macro snowflake__unnest_array(relation, columns, array, item) %}
    select {{ columns | join(', ') }}, cast(items.value as varchar) as {{ item }}
    from {{ relation }}
    cross join lateral flatten(input => {{ array }}) as items
{%- endmacro %}


{#- The type of an array of text, as the Singer targets create it. -#}
{% macro array_type() %}
    {{- return(adapter.dispatch('array_type', 'tap_mde_kbs')()) -}}
{% endmacro %}

{% macro postgres__array_type() -%}
    text[]
{%- endmacro %}

{% macro duckdb__array_type() -%}
    json
{%- endmacro %}

{% macro snowflake__array_type() -%}
    variant
{%- endmacro %}

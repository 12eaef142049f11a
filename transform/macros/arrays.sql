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

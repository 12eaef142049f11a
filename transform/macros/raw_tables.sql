{#- The rows of a raw table, of every tenant's schema one after the other; `tenant` is the schema's name.

    An optional table is left out where it does not exist; without any, there are no rows, and the columns are text. -#}
{% macro every_tenant(table, columns, optional=false) %}
    {%- set schemas = [var('mde_schema')] if var('mde_schema') is string else var('mde_schema') -%}
    {%- set selects = [] -%}
    {%- for schema in schemas -%}
        {%- set relation = source('mde', table).replace_path(schema=schema) -%}
        {%- if not optional or (execute and load_relation(relation) is not none) -%}
            {%- do selects.append(
                "select '" ~ schema ~ "' as tenant, " ~ columns | join(', ') ~ " from " ~ relation
            ) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if not selects -%}
        {%- set nulls = [] -%}
        {%- for column in ['tenant'] + columns -%}
            {%- do nulls.append('cast(null as ' ~ dbt.type_string() ~ ') as ' ~ column) -%}
        {%- endfor -%}
        {%- do selects.append('select ' ~ nulls | join(', ') ~ ' where 1 = 0') -%}
    {%- endif -%}
    {{ selects | join('\n    union all\n    ') }}
{%- endmacro %}

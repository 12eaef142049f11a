{#- The rows of a raw table, of every tenant's schema one after the other; `tenant` is the schema's name.

    An earlier version of the tap filled tables without the columns in `later`, a dictionary of their types: where one is
    not there it is null. A table is left out where it does not exist, as for a tenant that was never loaded, if another
    schema has it. If none has it, there are no rows of an optional one, and of another the warehouse's error. -#}
{% macro every_tenant(table, columns, later={}, optional=false) %}
    {%- set schemas = [var('mde_schema')] if var('mde_schema') is string else var('mde_schema') -%}
    {%- set found = tap_mde_kbs.raw_columns(table, schemas) -%}
    {%- set selects = [] -%}
    {%- for schema in schemas -%}
        {%- set there = found.get(schema | lower, []) -%}
        {%- if there or not (optional or found) -%}
            {%- set wanted = [] -%}
            {%- for column in columns + (later.keys() | list) -%}
                {%- if column in there or column not in later or not execute -%}
                    {%- do wanted.append(column) -%}
                {%- else -%}
                    {%- do wanted.append('cast(null as ' ~ later[column] ~ ') as ' ~ column) -%}
                {%- endif -%}
            {%- endfor -%}
            {%- do selects.append(
                "select '" ~ schema ~ "' as tenant, " ~ wanted | join(', ')
                ~ ' from ' ~ source('mde', table).replace_path(schema=schema)
            ) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if not selects -%}
        {%- set nulls = [] -%}
        {%- for column in ['tenant'] + columns + (later.keys() | list) -%}
            {%- do nulls.append('cast(null as ' ~ later.get(column, dbt.type_string()) ~ ') as ' ~ column) -%}
        {%- endfor -%}
        {%- do selects.append('select ' ~ nulls | join(', ') ~ ' where 1 = 0') -%}
    {%- endif -%}
    {{ selects | join('\n    union all\n    ') }}
{%- endmacro %}


{#- The columns that a raw table has, by schema; all names in small letters. -#}
{% macro raw_columns(table, schemas) %}
    {%- set found = {} -%}
    {%- if execute -%}
        {%- set rows = run_query(
            "select lower(table_schema), lower(column_name) from information_schema.columns"
            ~ " where lower(table_catalog) = '" ~ source('mde', table).database | lower ~ "'"
            ~ " and lower(table_name) = '" ~ table ~ "'"
            ~ " and lower(table_schema) in ('" ~ schemas | map('lower') | join("', '") ~ "')"
        ).rows -%}
        {%- for row in rows -%}
            {%- do found.setdefault(row[0], []).append(row[1]) -%}
        {%- endfor -%}
    {%- endif -%}
    {{- return(found) -}}
{% endmacro %}

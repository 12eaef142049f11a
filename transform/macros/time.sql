{#- Days from one moment to another, a real number. -#}
{% macro days_between(start, end) %}
    {{- return(adapter.dispatch('days_between', 'tap_mde_kbs')(start, end)) -}}
{% endmacro %}

{% macro default__days_between(start, end) -%}
    cast({{ dbt.datediff(start, end, 'microsecond') }} as double precision) / 86400000000
{%- endmacro %}

{#- dbt's own goes by way of whole seconds there, six times as long. -#}
{% macro postgres__days_between(start, end) -%}
    cast(extract(epoch from {{ end }} - {{ start }}) as double precision) / 86400
{%- endmacro %}


{#- A moment's month as text, 2026-01. -#}
{% macro year_and_month(moment) %}
    {{- return(adapter.dispatch('year_and_month', 'tap_mde_kbs')(moment)) -}}
{% endmacro %}

{% macro default__year_and_month(moment) -%}
    to_char({{ moment }}, 'YYYY-MM')
{%- endmacro %}

{% macro duckdb__year_and_month(moment) -%}
    strftime({{ moment }}, '%Y-%m')
{%- endmacro %}


{#- Days from one moment to another; none where clocks went backwards. -#}
{% macro days_passed(start, end) -%}
    case when {{ end }} < {{ start }} then 0 else {{ days_between(start, end) }} end
{%- endmacro %}


{#- A moment as an integer. -#}
{% macro microseconds(moment) %}
    {{- return(adapter.dispatch('microseconds', 'tap_mde_kbs')(moment)) -}}
{% endmacro %}

{% macro postgres__microseconds(moment) -%}
    cast(date_part('epoch', {{ moment }}) * 1000000 as bigint)
{%- endmacro %}

{% macro duckdb__microseconds(moment) -%}
    epoch_us({{ moment }})
{%- endmacro %}

{% macro snowflake__microseconds(moment) -%}
    date_part(epoch_microsecond, {{ moment }})
{%- endmacro %}


{#- A day as the moment at which it begins. -#}
{% macro midnight(day) -%}
    cast({{ day }} as {{ dbt.type_timestamp() }})
{%- endmacro %}


{#- The second Tuesday of a month, of which any day is given. 2000-01-03 was a Monday. -#}
{% macro second_tuesday(day) -%}
    {%- set first = "cast(" ~ dbt.date_trunc('month', day) ~ " as date)" -%}
    {%- set monday = "cast('2000-01-03' as date)" -%}
    {%- set weekday = "mod(" ~ dbt.datediff(monday, first, 'day') ~ ", 7)" -%}
    cast({{ dbt.dateadd('day', '7 + mod(8 - ' ~ weekday ~ ', 7)', first) }} as date)
{%- endmacro %}


{#- The first day of the month in a title of Microsoft's, "March 2020 Security Updates"; null for other titles. -#}
{% macro month_in_title(title) -%}
    {%- set months = [
        'january', 'february', 'march', 'april', 'may', 'june',
        'july', 'august', 'september', 'october', 'november', 'december'
    ] -%}
    {%- set year = dbt.split_part(title, "' '", 2) -%}
    case
        when length({{ year }}) = 4 and translate({{ year }}, '0123456789', '') = '' and {{ year }} >= '2000'
            then cast({{ year }} || case lower({{ dbt.split_part(title, "' '", 1) }})
                {%- for month in months %}
                when '{{ month }}' then '-{{ '%02d' % loop.index }}-01'
                {%- endfor %}
            end as date)
    end
{%- endmacro %}

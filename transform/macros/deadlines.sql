{#- Whether the deadline with a day of its own comes before the one that counts from the first answer. -#}
{% macro is_due_by_day() -%}
    coalesce(relative_due_at is null or fixed_due_at < relative_due_at, false)
{%- endmacro %}

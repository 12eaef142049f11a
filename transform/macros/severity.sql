{#- A severity in words as a number to compare, on Defender's scale or on MSRC's (Important is High, Moderate is Medium);
    null for words that are not Microsoft's. -#}
{% macro severity_rank(severity) -%}
    case lower({{ severity }})
        when 'critical' then 4
        when 'high' then 3 when 'important' then 3
        when 'medium' then 2 when 'moderate' then 2
        when 'low' then 1
        when 'none' then 0
    end
{%- endmacro %}


{#- The word of such a number. -#}
{% macro severity_of_rank(rank) -%}
    case {{ rank }}
        when 4 then 'Critical' when 3 then 'High' when 2 then 'Medium' when 1 then 'Low' when 0 then 'None'
    end
{%- endmacro %}

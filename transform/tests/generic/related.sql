{% test related(model, columns, to) %}

select
    {%- for column in columns %}
    model.{{ column }}{{ ',' if not loop.last }}
    {%- endfor %}
from {{ model }} as model
left join {{ to }} as related
    on {% for column in columns %}model.{{ column }} = related.{{ column }}{{ ' and ' if not loop.last }}{% endfor %}
where related.{{ columns[0] }} is null

{% endtest %}

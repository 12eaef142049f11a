-- What the semantic layer counts time by.
with

days as (

    {{ dbt.date_spine('day', "cast('2020-01-01' as date)", "cast('2040-01-01' as date)") }}

)

select cast(date_day as date) as day from days

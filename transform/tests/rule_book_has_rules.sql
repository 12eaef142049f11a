{{ config(severity="error") }}

-- The variable rule_book names the seed deadlines or a book of the seed rule_books.
select '{{ var("rule_book") }}' as rule_book
where
    '{{ var("rule_book") }}' <> 'own'
    and '{{ var("rule_book") }}' not in (select rule_book from {{ ref('stg_rule_books') }})

with

kbs as (

    select * from {{ ref('stg_msrc_kbs') }}

),

released as (

    select
        kb_id,
        cast({{ dbt.date_trunc('month', 'released_on') }} as date) as month
    from {{ ref('int_kb_facts') }}
    where released_on is not null

),

superseded as (

    {{ unnest_array('kbs', ['kb_id'], 'supersedes', 'superseded_id') }}

),

sub_types as (

    {{ unnest_array('kbs', ['kb_id'], 'sub_types', 'sub_type') }}

),

products as (

    {{ unnest_array('kbs', ['kb_id', 'document_id'], 'products', 'product') }}

),

product_ids as (

    {{ unnest_array('kbs', ['kb_id', 'document_id'], 'product_ids', 'product_id') }}

),

worded as (

    select
        kb_id,
        replace(lower(sub_type), ' ', '') as sub_type
    from sub_types

),

kinds as (

    select
        kb_id,
        max(case when sub_type in ('securityupdate', 'cumulativeupdate') then 1 else 0 end) as is_cumulative,
        max(case when sub_type like '%hotpatch%' then 1 else 0 end) as is_hotpatch,
        max(
            case
                when
                    sub_type like '%standalone%'
                    or sub_type like '%servicing%'
                    or sub_type like '%setupdu%'
                    or sub_type like '%setupdynamicupdate%'
                    or sub_type like '%securityonly%'
                    then 1
                else 0
            end
        ) as is_partial
    from worded
    group by kb_id

),

-- Names and ids are each sorted by themselves: which belong together is not said.
about_windows as (

    select
        kb_id,
        document_id,
        max(
            case
                when
                    lower(product) like 'windows 10%'
                    or lower(product) like 'windows 11%'
                    or lower(product) like 'windows server, version %'
                    or lower(product) like 'windows server version %'
                    or (
                        lower(product) like 'windows server 20%'
                        and substring(product, length('windows server ') + 1, 4) >= '2016'
                    )
                    then 1
                else 0
            end
        ) as is_windows
    from products
    group by kb_id, document_id

),

-- An id that is ever named without a Windows is another product's: .NET's own on a Windows, say.
windows_ids as (

    select product_ids.product_id
    from product_ids
    inner join about_windows
        on product_ids.kb_id = about_windows.kb_id
        and product_ids.document_id = about_windows.document_id
    group by product_ids.product_id
    having min(about_windows.is_windows) = 1

),

of_windows as (

    select distinct
        product_ids.product_id,
        product_ids.kb_id,
        released.month,
        kinds.is_cumulative = 1 and kinds.is_hotpatch = 0 as is_cumulative
    from product_ids
    inner join windows_ids on product_ids.product_id = windows_ids.product_id
    inner join released on product_ids.kb_id = released.kb_id
    inner join kinds on product_ids.kb_id = kinds.kb_id
    where
        kinds.is_partial = 0
        and (kinds.is_cumulative = 1 or kinds.is_hotpatch = 1)

),

cumulative_months as (

    select distinct
        product_id,
        month
    from of_windows
    where is_cumulative

),

-- The next month's are enough: from there on it is transitive.
next_months as (

    select
        of_windows.product_id,
        of_windows.kb_id,
        min(cumulative_months.month) as month
    from of_windows
    inner join cumulative_months
        on of_windows.product_id = cumulative_months.product_id
        and of_windows.month < cumulative_months.month
    group by of_windows.product_id, of_windows.kb_id

),

links as (

    select
        kb_id as replaced_by,
        superseded_id as older_id,
        0 as is_assumed
    from superseded

    union all

    select
        of_windows.kb_id,
        next_months.kb_id as older_id,
        1
    from next_months
    inner join of_windows
        on next_months.product_id = of_windows.product_id
        and next_months.month = of_windows.month
        and of_windows.is_cumulative

)

select
    older_id as kb_id,
    replaced_by,
    min(is_assumed) as is_assumed
from links
where older_id <> replaced_by
group by older_id, replaced_by

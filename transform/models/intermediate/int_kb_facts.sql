with

msrc_kbs as (

    select * from {{ ref('stg_msrc_kbs') }}

),

kbs as (

    select * from {{ ref('int_kbs') }}

),

missed as (

    select distinct kb_id from {{ ref('int_kb_episodes') }}

),

kev as (

    select count(*) as entries from {{ ref('stg_kev') }}

),

known as (

    select kb_id from missed
    union
    select kb_id from msrc_kbs

),

-- An update belongs to the month in which it closes most.
ranked as (

    select
        *,
        row_number() over (partition by kb_id order by cves desc, document_month desc, document_id desc) as place
    from msrc_kbs

),

of_documents as (

    select
        kb_id,
        max(cves) as most_cves,
        max(
            case lower(restart_required) when 'yes' then 2 when 'maybe' then 1 when 'no' then 0 end
        ) as restart_rank
    from msrc_kbs
    group by kb_id

),

of_cves as (

    select
        closed.kb_id,
        count(*) as cves,
        max(cves.msrc_severity_rank) as severity_rank,
        sum(case when cves.is_attacked then 1 else 0 end) as attacked_cves,
        sum(case when cves.in_kev then 1 else 0 end) as kev_cves,
        sum(case when cves.is_ransomware then 1 else 0 end) as ransomware_cves,
        sum(case when cves.is_disclosed then 1 else 0 end) as disclosed_cves,
        min(cves.kev_due_on) as kev_due_on,
        max(cves.epss) as max_epss
    from {{ ref('int_closed_cves') }} as closed
    inner join {{ ref('int_cves') }} as cves on closed.cve_id = cves.cve_id
    group by closed.kb_id

),

joined as (

    select
        known.kb_id,
        ranked.kb_id is not null as is_in_msrc,
        ranked.published_on,
        ranked.document_month,
        {{ month_in_title('kbs.name') }} as month_in_title,
        kbs.worst_severity_rank as exported_severity_rank,
        -- That it closes none is known only where its documents say so.
        case when of_cves.kb_id is not null or of_documents.most_cves = 0 then coalesce(of_cves.cves, 0) end
            as known_cves,
        of_cves.severity_rank as msrc_severity_rank,
        coalesce(of_cves.attacked_cves, 0) as attacked_cves,
        coalesce(of_cves.kev_cves, 0) as kev_cves,
        coalesce(of_cves.ransomware_cves, 0) as ransomware_cves,
        coalesce(of_cves.disclosed_cves, 0) as disclosed_cves,
        of_cves.kev_due_on,
        of_cves.max_epss,
        of_documents.restart_rank,
        kev.entries > 0 as has_kev
    from known
    cross join kev
    left join kbs on known.kb_id = kbs.kb_id
    left join ranked
        on known.kb_id = ranked.kb_id
        and ranked.place = 1
    left join of_documents on known.kb_id = of_documents.kb_id
    left join of_cves on known.kb_id = of_cves.kb_id

)

select
    kb_id,
    coalesce(
        published_on,
        {{ second_tuesday('document_month') }},
        {{ second_tuesday('month_in_title') }}
    ) as released_on,
    case when document_month is not null or month_in_title is not null then published_on is not null end
        as released_on_is_exact,
    known_cves,
    cast(case when is_in_msrc then known_cves end as bigint) as cves,
    coalesce(exported_severity_rank, msrc_severity_rank) as severity_rank,
    cast(case when known_cves is not null and (is_in_msrc or has_kev) then attacked_cves end as bigint)
        as attacked_cves,
    cast(case when known_cves is not null and has_kev then kev_cves end as bigint) as kev_cves,
    cast(case when known_cves is not null and has_kev then ransomware_cves end as bigint) as ransomware_cves,
    cast(case when known_cves is not null and is_in_msrc then disclosed_cves end as bigint) as disclosed_cves,
    kev_due_on,
    max_epss,
    case restart_rank when 2 then 'Yes' when 1 then 'Maybe' when 0 then 'No' end as restart_required
from joined

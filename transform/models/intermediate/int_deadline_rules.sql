with

classes as (

    select * from {{ ref('int_machine_classes') }}
    where is_first

),

facts as (

    select * from {{ ref('int_kb_facts') }}

),

cves as (

    select * from {{ ref('int_cves') }}

),

rules as (

    select * from {{ ref('stg_rule_books') }}

),

missed_by_classes as (

    select distinct
        classes.machine_class,
        episodes.kb_id
    from {{ ref('int_kb_episodes') }} as episodes
    inner join {{ ref('int_machine_classes') }} as classes
        on episodes.tenant = classes.tenant
        and episodes.machine_id = classes.machine_id

),

counts_of_cves as (

    select
        kb_id,
        cve_addressed
    from {{ ref('int_machine_kbs') }}
    where cve_addressed is not null
    union
    -- Of a machine that told none, the newest answer about the update counts.
    select
        facts.kb_id,
        kbs.cve_addressed
    from facts
    left join {{ ref('int_kbs') }} as kbs on facts.kb_id = kbs.kb_id

),

-- Pairs that no rule tells apart: those that there are, and some that there may be.
kinds as (

    select
        missed_by_classes.machine_class,
        missed_by_classes.kb_id,
        counts_of_cves.cve_addressed
    from missed_by_classes
    inner join counts_of_cves on missed_by_classes.kb_id = counts_of_cves.kb_id

),

-- By severity where it is known, else by the number of CVEs.
own as (

    select
        kinds.machine_class,
        kinds.kb_id,
        kinds.cve_addressed,
        'own' as rule_book,
        deadlines.deadline_id as rule_id,
        'first_missed' as clock,
        deadlines.days,
        false as forensic_triage,
        false as clock_is_assumed,
        cast(null as date) as clock_on
    from kinds
    inner join classes on kinds.machine_class = classes.machine_class
    inner join {{ ref('int_machine_deadlines') }} as deadlines
        on classes.tenant = deadlines.tenant
        and classes.machine_id = deadlines.machine_id
    inner join facts on kinds.kb_id = facts.kb_id
    where
        deadlines.is_for_any_kb
        or facts.severity_rank >= deadlines.min_severity_rank
        or (facts.severity_rank is null and kinds.cve_addressed >= deadlines.min_cve_addressed)

),

-- What a rule book has to know of each CVE. Of an update whose CVEs nobody knows there is one row without any fact.
facts_of_cves as (

    select distinct
        facts.kb_id,
        facts.released_on,
        cves.severity_rank,
        cves.in_kev,
        cves.is_attacked,
        cves.is_automatable,
        cves.technical_impact,
        cves.is_assessed,
        cves.kev_forensic,
        cves.kev_added_on
    from facts
    left join {{ ref('int_closed_cves') }} as closed on facts.kb_id = closed.kb_id
    left join cves on closed.cve_id = cves.cve_id
    where
        closed.kb_id is not null
        or facts.known_cves is null

),

by_the_book as (

    select
        kinds.machine_class,
        kinds.kb_id,
        kinds.cve_addressed,
        rules.rule_book,
        rules.rule_id,
        rules.clock,
        rules.days,
        rules.forensic_triage,
        facts_of_cves.released_on,
        facts_of_cves.kev_added_on
    from kinds
    inner join classes on kinds.machine_class = classes.machine_class
    inner join facts_of_cves on kinds.kb_id = facts_of_cves.kb_id
    inner join rules
        on (rules.is_exposed is null or classes.is_exposed = rules.is_exposed)
        and (rules.min_severity_rank is null or facts_of_cves.severity_rank >= rules.min_severity_rank)
        and (rules.in_kev is null or facts_of_cves.in_kev = rules.in_kev)
        and (rules.is_exploited is null or facts_of_cves.is_attacked = rules.is_exploited)
        and (rules.is_automatable is null or facts_of_cves.is_automatable = rules.is_automatable)
        and (rules.technical_impact is null or facts_of_cves.technical_impact = rules.technical_impact)
        and (rules.is_assessed is null or facts_of_cves.is_assessed = rules.is_assessed)
        and (rules.kev_forensic is null or facts_of_cves.kev_forensic = rules.kev_forensic)

),

-- A clock is the first answer with the update, or a day that is the same for every machine.
clocks as (

    select * from own

    union all

    select
        machine_class,
        kb_id,
        cve_addressed,
        rule_book,
        rule_id,
        clock,
        days,
        forensic_triage,
        clock = 'release' and released_on is null as clock_is_assumed,
        case when clock = 'release' then released_on end as clock_on
    from by_the_book

    union all

    select
        machine_class,
        kb_id,
        cve_addressed,
        rule_book,
        rule_id,
        clock,
        days,
        forensic_triage,
        false,
        kev_added_on
    from by_the_book
    where
        clock = 'detected_or_kev'
        and kev_added_on is not null

),

dues as (

    select
        *,
        cast({{ dbt.dateadd('day', 'days', midnight('clock_on')) }} as {{ dbt.type_timestamp() }}) as fixed_due_at
    from clocks

),

ranked as (

    select
        *,
        row_number() over (
            partition by machine_class, kb_id, cve_addressed, rule_book, clock_on is null
            order by fixed_due_at asc, days asc, forensic_triage desc, clock_is_assumed asc, rule_id asc
        ) as place
    from dues

)

-- Of the rules with either clock the strictest is left.
select
    rule_book,
    machine_class,
    kb_id,
    cve_addressed,
    max(case when clock_on is null then rule_id end) as rule_id,
    max(case when clock_on is null then days end) as days,
    max(case when clock_on is null and forensic_triage then 1 else 0 end) = 1 as forensic_triage,
    max(case when clock_on is null and clock_is_assumed then 1 else 0 end) = 1 as clock_is_assumed,
    max(case when clock_on is not null then rule_id end) as fixed_rule_id,
    max(case when clock_on is not null then days end) as fixed_days,
    max(case when clock_on is not null and forensic_triage then 1 else 0 end) = 1 as fixed_forensic_triage,
    max(fixed_due_at) as fixed_due_at
from ranked
where place = 1
group by rule_book, machine_class, kb_id, cve_addressed

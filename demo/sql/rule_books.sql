-- What each rule book calls due and overdue, of what is missing now.
SELECT
    rule_book,
    count(*) AS due_pairs,
    count(days_overdue) AS overdue_pairs,
    count(DISTINCT (tenant, machine_id)) FILTER (WHERE days_overdue IS NOT NULL) AS overdue_machines,
    count(*) FILTER (WHERE days_overdue IS NOT NULL AND forensic_triage) AS triage_pairs,
    min(due_at) FILTER (WHERE days_overdue IS NULL) AS next_due_at
FROM pair_deadlines
GROUP BY rule_book
ORDER BY CASE rule_book WHEN 'own' THEN 0 ELSE 1 END, rule_book;

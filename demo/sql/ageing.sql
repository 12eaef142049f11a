-- What active machines lack, by the days left until its deadline or gone by since.
WITH open_pairs AS (
    SELECT
        extract(epoch FROM present.checked_at - episodes.due_at) / 86400 AS days_overdue
    FROM kb_episodes AS episodes
    JOIN machine_compliance AS machines
        ON machines.machine_id = episodes.machine_id
        AND machines.is_active
    CROSS JOIN (SELECT max(last_checked_at) AS checked_at FROM machine_compliance) AS present
    WHERE episodes.status = 'open'
),
bands (position, label, kind, above, up_to) AS (
    VALUES
        (1, 'over 30 days late', 'red', 30, 1e9),
        (2, '8 to 30 days late', 'red', 7, 30),
        (3, 'up to 7 days late', 'red', 0, 7),
        (4, 'due within 7 days', 'amber', -7, 0),
        (5, 'due in 8 to 30 days', 'green', -30, -7),
        (6, 'due later', 'green', -1e9, -30)
)
SELECT
    bands.label,
    bands.kind,
    count(open_pairs.days_overdue) AS pairs
FROM bands
LEFT JOIN open_pairs
    ON open_pairs.days_overdue > bands.above
    AND open_pairs.days_overdue <= bands.up_to
GROUP BY bands.position, bands.label, bands.kind
ORDER BY bands.position;

-- What active machines lack, by the days since its deadline or until it.
WITH open_pairs AS (
    SELECT extract(epoch FROM present.checked_at - episodes.due_at) / 86400 AS days_overdue
    FROM kb_episodes AS episodes
    JOIN machine_compliance AS machines
        ON machines.tenant = episodes.tenant
        AND machines.machine_id = episodes.machine_id
        AND machines.is_active
    CROSS JOIN (SELECT max(last_checked_at) AS checked_at FROM machine_compliance) AS present
    WHERE episodes.status = 'open'
),
placed AS (
    SELECT
        CASE
            WHEN days_overdue > 30 THEN 1
            WHEN days_overdue > 7 THEN 2
            WHEN days_overdue > 0 THEN 3
            WHEN days_overdue >= -7 THEN 4
            WHEN days_overdue >= -30 THEN 5
            ELSE 6
        END AS position
    FROM open_pairs
),
bands (position, label, colour) AS (
    VALUES
        (1, 'over 30 days late', 'red'),
        (2, '8 to 30 days late', 'red'),
        (3, 'up to 7 days late', 'red'),
        (4, 'due within 7 days', 'amber'),
        (5, 'due in 8 to 30 days', 'green'),
        (6, 'due later', 'green')
)
SELECT
    bands.label,
    bands.colour,
    count(placed.position) AS pairs
FROM bands
LEFT JOIN placed ON placed.position = bands.position
GROUP BY bands.position, bands.label, bands.colour
ORDER BY bands.position;

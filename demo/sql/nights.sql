-- How it went from night to night. An update that a machine no longer lacks was installed if the
-- machine was asked again, and went with the machine if that left.
WITH opened AS (
    SELECT today.night, count(*) AS pairs
    FROM missing_by_night AS today
    LEFT JOIN missing_by_night AS before
        ON before.night = today.night - 1
        AND before.machine_id = today.machine_id
        AND before.kb_id = today.kb_id
    WHERE before.night IS NULL
    GROUP BY today.night
),
closed AS (
    SELECT
        next.night,
        count(checks.machine_id) AS installed,
        count(*) - count(checks.machine_id) AS left_with_machine
    FROM missing_by_night AS before
    JOIN demo_nights AS next ON next.night = before.night + 1
    LEFT JOIN missing_kbs_checks AS checks
        ON checks.sweep = next.sweep
        AND checks.machine_id = before.machine_id
    LEFT JOIN missing_by_night AS today
        ON today.night = next.night
        AND today.machine_id = before.machine_id
        AND today.kb_id = before.kb_id
    WHERE today.night IS NULL
    GROUP BY next.night
),
open AS (
    SELECT night, count(*) AS pairs
    FROM missing_by_night
    GROUP BY night
)
SELECT
    demo_nights.night,
    demo_nights.day,
    count(*) AS listed,
    count(*) FILTER (WHERE checks.outcome <> 'skipped') AS asked,
    count(*) FILTER (WHERE checks.outcome = 'answered') AS answered,
    coalesce(open.pairs, 0) AS open,
    CASE WHEN night > 1 THEN coalesce(opened.pairs, 0) END AS opened,
    CASE WHEN night > 1 THEN coalesce(closed.installed, 0) END AS installed,
    CASE WHEN night > 1 THEN coalesce(closed.left_with_machine, 0) END AS left_with_machine
FROM demo_nights
JOIN missing_kbs_checks AS checks USING (sweep)
LEFT JOIN open USING (night)
LEFT JOIN opened USING (night)
LEFT JOIN closed USING (night)
GROUP BY
    demo_nights.night, demo_nights.day, open.pairs, opened.pairs,
    closed.installed, closed.left_with_machine
ORDER BY demo_nights.night;

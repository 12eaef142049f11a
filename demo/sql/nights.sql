-- How it went from night to night. An update that a machine no longer lacks was installed if the
-- machine is still listed, and went with the machine if not.
WITH missing AS MATERIALIZED (
    SELECT night, machine_id, kb_id
    FROM missing_by_night
),
compared AS (
    SELECT
        coalesce(today.night, before.night + 1) AS night,
        coalesce(today.machine_id, before.machine_id) AS machine_id,
        today.night IS NOT NULL AS is_open,
        before.night IS NULL AS is_new
    FROM missing AS today
    FULL JOIN missing AS before
        ON before.night + 1 = today.night
        AND before.machine_id = today.machine_id
        AND before.kb_id = today.kb_id
),
pairs AS (
    SELECT
        compared.night,
        count(*) FILTER (WHERE is_open) AS open,
        count(*) FILTER (WHERE is_open AND is_new) AS opened,
        count(*) FILTER (WHERE NOT is_open AND checks.machine_id IS NOT NULL) AS installed,
        count(*) FILTER (WHERE NOT is_open AND checks.machine_id IS NULL) AS left_with_machine
    FROM compared
    JOIN demo_nights USING (night)
    LEFT JOIN missing_kbs_checks AS checks USING (machine_id, sweep)
    GROUP BY compared.night
),
asked AS (
    SELECT
        demo_nights.night,
        demo_nights.day,
        count(*) AS listed,
        count(*) FILTER (WHERE outcome <> 'skipped') AS asked,
        count(*) FILTER (WHERE outcome = 'answered') AS answered
    FROM demo_nights
    JOIN missing_kbs_checks USING (sweep)
    GROUP BY demo_nights.night, demo_nights.day
)
SELECT
    night,
    asked.day,
    asked.listed,
    asked.asked,
    asked.answered,
    coalesce(pairs.open, 0) AS open,
    -- There is nothing to compare the first night with.
    CASE WHEN night > 1 THEN coalesce(pairs.opened, 0) END AS opened,
    CASE WHEN night > 1 THEN coalesce(pairs.installed, 0) END AS installed,
    CASE WHEN night > 1 THEN coalesce(pairs.left_with_machine, 0) END AS left_with_machine
FROM asked
LEFT JOIN pairs USING (night)
ORDER BY night;

-- How each device group is doing; the last row is all of them.
WITH missing AS (
    SELECT machine_id, count(*) AS kbs
    FROM missing_now
    GROUP BY machine_id
)
SELECT
    CASE
        WHEN grouping(rbac_group_name) = 1 THEN 'all'
        ELSE coalesce(rbac_group_name, '(no group)')
    END AS device_group,
    count(*) AS machines,
    count(*) FILTER (WHERE last_checks.outcome <> 'skipped') AS asked,
    count(answered_at) FILTER (WHERE missing.kbs IS NULL) AS patched,
    count(answered_at) FILTER (WHERE missing.kbs IS NULL)::float / nullif(count(answered_at), 0)
        AS patched_share,
    coalesce(sum(missing.kbs), 0)::float / nullif(count(answered_at), 0) AS mean_missing
FROM present_machines
LEFT JOIN last_checks ON last_checks.machine_id = present_machines.id
LEFT JOIN missing ON missing.machine_id = present_machines.id
GROUP BY GROUPING SETS ((rbac_group_name), ())
ORDER BY grouping(rbac_group_name), patched_share NULLS LAST, device_group;

-- How long it takes to install an update: by month and by device group.
SELECT
    segment_kind,
    segment,
    installs,
    mean_days,
    median_days
FROM time_to_install
WHERE segment_kind IN ('month', 'group')
ORDER BY
    segment_kind,
    CASE WHEN segment_kind = 'month' THEN segment END,
    median_days,
    segment;

-- The figures at the top, as of the newest check; one row, whatever there is.
SELECT
    present.checked_at,
    present.machines AS listed_machines,
    coalesce(active.machines, 0) AS active_machines,
    coalesce(active.known_machines, 0) AS known_machines,
    coalesce(active.patched_machines, 0) AS patched_machines,
    present.overdue_machines,
    active.patched_share,
    coalesce(active.missing_pairs, 0) AS missing_pairs,
    coalesce(active.overdue_pairs, 0) AS overdue_pairs,
    coalesce(installed.installs, 0) AS installs,
    installed.mean_days,
    installed.median_days,
    gaps.machines AS gap_machines
FROM (
    SELECT
        max(last_checked_at) AS checked_at,
        count(*) AS machines,
        count(*) FILTER (WHERE is_active AND overdue_kbs > 0) AS overdue_machines
    FROM machine_compliance
) AS present
CROSS JOIN (SELECT count(*) AS machines FROM coverage_gaps WHERE reason <> 'not_onboarded') AS gaps
LEFT JOIN compliance_by_segment AS active ON active.segment_kind = 'all'
LEFT JOIN time_to_install AS installed ON installed.segment_kind = 'all';

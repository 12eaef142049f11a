-- How the active machines of each segment are doing, the worst first.
SELECT
    segment_kind,
    segment,
    machines,
    known_machines,
    patched_machines,
    patched_share,
    missing_pairs,
    missing_pairs::float / nullif(known_machines, 0) AS mean_missing,
    missing_cves,
    overdue_pairs
FROM compliance_by_segment
ORDER BY segment_kind, patched_share NULLS LAST, segment;

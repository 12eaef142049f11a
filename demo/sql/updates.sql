-- The updates that are missing, with their ranks: on most machines, and of most CVEs.
WITH ranked AS (
    SELECT
        *,
        row_number() OVER (ORDER BY machines_missing DESC, cve_addressed DESC NULLS LAST, kb_id) AS by_machines,
        row_number() OVER (ORDER BY cve_addressed DESC NULLS LAST, machines_missing DESC, kb_id) AS by_cves
    FROM kbs_missing
    WHERE machines_missing > 0
)
SELECT
    *,
    first_missed_at::date > (SELECT min(day) FROM compliance_by_day) AS since_is_known
FROM ranked
WHERE least(by_machines, by_cves) <= 8
ORDER BY by_machines;

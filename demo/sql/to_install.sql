-- How much is missing, and how few updates close it all; whether any feed says so.
SELECT
    coalesce(sum(closes_kbs), 0) AS closed,
    count(*) AS installs,
    count(DISTINCT kb_id) AS updates,
    count(DISTINCT (tenant, machine_id)) AS machines,
    (SELECT count(*) FROM kb_episodes WHERE status = 'open') AS missing_pairs,
    EXISTS (SELECT FROM kbs WHERE cves IS NOT NULL) AS has_msrc
FROM updates_to_install;

-- Machines that are not asked for a reason: only discovered on the network, not onboarded.
SELECT
    coalesce(machines.onboarding_status, 'unknown') AS onboarding_status,
    count(*) AS machines
FROM missing_kbs_checks AS checks
JOIN machines ON machines.id = checks.machine_id
WHERE checks.sweep = (SELECT max(sweep) FROM missing_kbs_checks)
  AND checks.outcome = 'skipped'
GROUP BY machines.onboarding_status
ORDER BY machines DESC, onboarding_status;

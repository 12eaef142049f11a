-- Machines that could not be asked in the newest sweep, and the last night they were.
SELECT
    checks.outcome,
    coalesce(machines.computer_dns_name, machines.id) AS machine,
    coalesce(machines.rbac_group_name, '(no group)') AS device_group,
    max(demo_nights.day) AS last_answered
FROM missing_kbs_checks AS checks
JOIN machines ON machines.id = checks.machine_id
LEFT JOIN missing_kbs_checks AS answers
    ON answers.machine_id = checks.machine_id
    AND answers.outcome = 'answered'
LEFT JOIN demo_nights ON demo_nights.sweep = answers.sweep
WHERE checks.sweep = (SELECT max(sweep) FROM missing_kbs_checks)
  AND checks.outcome NOT IN ('answered', 'skipped')
GROUP BY checks.outcome, machines.id, machines.computer_dns_name, machines.rbac_group_name
ORDER BY checks.outcome, machine;

-- The active machines that are furthest behind.
SELECT
    machine_id,
    coalesce(nullif(trim(computer_dns_name), ''), machine_id) AS machine,
    coalesce(rbac_group_name, '(none)') AS device_group,
    os_platform,
    missing_kbs,
    missing_cves,
    overdue_kbs,
    oldest_missing_days
FROM machine_compliance
WHERE is_active
  AND missing_kbs > 0
ORDER BY overdue_kbs DESC, missing_kbs DESC, oldest_missing_days DESC, machine_id
LIMIT 8;

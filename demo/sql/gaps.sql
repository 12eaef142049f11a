-- Machines that nobody could ask, or that have gone quiet; those not onboarded are counted only.
SELECT
    machine_id,
    reason,
    coalesce(nullif(trim(computer_dns_name), ''), machine_id) AS machine,
    coalesce(rbac_group_name, '(none)') AS device_group,
    last_answered_at,
    last_seen
FROM coverage_gaps
ORDER BY reason = 'not_onboarded', reason = 'quiet', reason, last_seen, machine_id;

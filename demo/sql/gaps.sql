-- Machines that gave no answer first; then those that are not assessed, or have gone quiet.
SELECT
    machine_id,
    reason,
    coalesce(nullif(trim(computer_dns_name), ''), machine_id) AS machine,
    coalesce(rbac_group_name, '(none)') AS device_group,
    last_answered_at,
    last_seen
FROM coverage_gaps
ORDER BY
    CASE reason
        WHEN 'excluded' THEN 1
        WHEN 'silent' THEN 2
        WHEN 'quiet' THEN 3
        WHEN 'not_onboarded' THEN 4
        ELSE 0
    END,
    reason,
    last_seen,
    machine_id;

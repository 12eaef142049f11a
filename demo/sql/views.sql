-- What people ask of the loaded tables, whatever the target did with deletes.

-- Machines that have not left: the newest listing names them, or the newest sweep has a check.
CREATE OR REPLACE VIEW present_machines AS
SELECT *
FROM machines
WHERE listed_at = (SELECT max(listed_at) FROM machines)
   OR id IN (
        SELECT machine_id
        FROM missing_kbs_checks
        WHERE sweep = (SELECT max(sweep) FROM missing_kbs_checks)
      );

-- Each machine's last check, and when it was last answered (null: never).
CREATE OR REPLACE VIEW last_checks AS
SELECT DISTINCT ON (machine_id)
    machine_id,
    checked_at,
    outcome,
    max(checked_at) FILTER (WHERE outcome = 'answered') OVER (PARTITION BY machine_id) AS answered_at
FROM missing_kbs_checks
ORDER BY machine_id, sweep DESC;

-- What is missing now: rows not older than the machine's last answer.
CREATE OR REPLACE VIEW missing_now AS
SELECT
    present_machines.computer_dns_name,
    present_machines.rbac_group_name,
    missing_kbs.*
FROM missing_kbs
JOIN last_checks USING (machine_id)
JOIN present_machines ON present_machines.id = missing_kbs.machine_id
WHERE missing_kbs.checked_at >= last_checks.answered_at;

-- What every machine was known to lack after each sweep that lists it: its last answer until then.
CREATE OR REPLACE VIEW missing_by_night AS
SELECT
    demo_nights.night,
    demo_nights.day,
    checks.machine_id,
    unnest(answers.missing_kb_ids) AS kb_id
FROM demo_nights
JOIN missing_kbs_checks AS checks USING (sweep)
JOIN LATERAL (
    SELECT missing_kb_ids
    FROM missing_kbs_checks
    WHERE machine_id = checks.machine_id
      AND sweep <= checks.sweep
      AND outcome = 'answered'
    ORDER BY sweep DESC
    LIMIT 1
) AS answers ON true;

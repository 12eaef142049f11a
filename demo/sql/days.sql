-- Day by day, of the last half year.
SELECT
    day,
    machines_asked,
    machines_answered,
    machines_with_nothing_missing,
    machines_with_nothing_missing::float / nullif(machines_answered, 0) AS patched_share,
    opened_pairs,
    installed_pairs,
    open_pairs
FROM compliance_by_day
WHERE day > (SELECT max(day) FROM compliance_by_day) - 183
ORDER BY day;

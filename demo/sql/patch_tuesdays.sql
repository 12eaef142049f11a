-- The second Tuesday of each month in that time.
SELECT generated::date AS day
FROM generate_series(
    (SELECT greatest(min(day), max(day) - 182) FROM compliance_by_day)::timestamp,
    (SELECT max(day) FROM compliance_by_day)::timestamp,
    interval '1 day'
) AS generated
WHERE extract(isodow FROM generated) = 2
  AND extract(day FROM generated) BETWEEN 8 AND 14
ORDER BY generated;

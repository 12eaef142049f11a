-- The updates that most machines lack, and the night they were first seen missing.
WITH first_seen AS (
    SELECT kb_id, min(day) AS day
    FROM missing_by_night
    GROUP BY kb_id
)
SELECT
    'KB' || missing_now.id AS update,
    max(missing_now.name) AS name,
    array_to_string((array_agg(missing_now.products_names))[1:1], ', ') AS products,
    max(missing_now.cve_addressed) AS cves,
    count(*) AS machines,
    first_seen.day AS missing_since,
    first_seen.day > (SELECT min(day) FROM demo_nights) AS since_is_known
FROM missing_now
JOIN first_seen ON first_seen.kb_id = missing_now.id
GROUP BY missing_now.id, first_seen.day
ORDER BY machines DESC, cves DESC, update
LIMIT 10;

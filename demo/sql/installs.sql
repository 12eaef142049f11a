-- What to install, an update a row: what is attacked first, then what is overdue, then what is due.
WITH known AS (
    SELECT kb_id, name, url FROM kbs_missing
)
SELECT
    installs.kb_id,
    known.name,
    known.url,
    max(installs.severity) AS severity,
    max(installs.released_on) AS released_on,
    bool_and(kbs.released_on_is_exact) AS released_on_is_exact,
    count(*) AS machines,
    max(installs.closes_kbs) AS closes_kbs,
    max(installs.cves) AS cves,
    max(installs.attacked_cves) AS attacked_cves,
    max(installs.kev_cves) AS kev_cves,
    max(installs.max_epss) AS max_epss,
    max(installs.restart_required) AS restart_required,
    min(installs.due_at) AS due_at,
    count(installs.days_overdue) AS overdue_machines,
    bool_or(installs.forensic_triage) AS forensic_triage,
    bool_or(installs.is_assumed) AS is_assumed
FROM updates_to_install AS installs
LEFT JOIN kbs ON kbs.kb_id = installs.kb_id
LEFT JOIN known ON known.kb_id = installs.kb_id
GROUP BY installs.kb_id, known.name, known.url
ORDER BY
    max(installs.attacked_cves) DESC NULLS LAST,
    count(installs.days_overdue) DESC,
    count(*) DESC,
    installs.kb_id;

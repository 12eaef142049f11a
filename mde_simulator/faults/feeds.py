"""What the advisory feeds do now and then: months that are lost or mixed up, dates that go back, files cut or odd.

The ordinary faults strike them, too, where `path` says so: `html:path=/cvrf/*`.
"""

from __future__ import annotations

from datetime import date, timedelta, timezone
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mde_simulator.faults.answers import PAGE, page
from mde_simulator.faults.fault import kind, of_payload
from mde_simulator.feeds.epss import packed
from mde_simulator.http.messages import JSON, Response

if TYPE_CHECKING:
    from mde_simulator.faults.fault import Strike

INDEX, DOCUMENT = "/cvrf/v3.0/updates", "/cvrf/v3.0/cvrf/*"
KEV, EPSS, SCORES = "/sites/*", "/epss_scores-*", "/epss_scores-2*"
"""The catalogue; all of FIRST's paths; the files of its days."""
DAY = timedelta(days=1)


def _json(body: bytes | None) -> Response:
    return Response(HTTPStatus.OK, body or b"", {"Content-Type": JSON})


def _next_catalogue(strike: Strike, keep: slice) -> Response:
    """A catalogue that was released a day later, with some of the entries, and a count that fits."""
    catalogue = strike.tenant.feeds.kev
    payload, released = catalogue.file(), catalogue.released() + DAY
    kept = payload["vulnerabilities"][keep]
    said = f"{released:%Y-%m-%d}{payload['dateReleased'][10:]}"
    response = Response.of(payload | {"dateReleased": said, "count": len(kept), "vulnerabilities": kept})
    response.headers["Last-Modified"] = format_datetime(released.replace(tzinfo=timezone.utc), usegmt=True)
    return response


@kind("msrc_other_month", DOCUMENT, "the document of the month before, whichever was asked for")
def _other_month(strike: Strike) -> Response:
    feeds = strike.tenant.feeds
    months = [*feeds.documents.months()]
    asked = strike.request.path.rpartition("/")[2]
    before = months.index(asked) - 1 if asked in months else 0
    return _json(feeds.document(months[before]))


@kind("msrc_gone", INDEX, "the newest month, or the document `text`, is not in the index; it is served at its URL")
@of_payload
def _gone(payload: Any, strike: Strike) -> Any:
    lost = strike.fault.text or [*strike.tenant.feeds.documents.months()][-1]
    return payload | {"value": [entry for entry in payload["value"] if entry["ID"] != lost]}


@kind("msrc_early", DOCUMENT, "the document as it is before Patch Tuesday, without a KB")
@of_payload
def _early(payload: Any, _strike: Strike) -> Any:
    kept = [entry for entry in payload["Vulnerability"] if not entry["Threats"] and entry["CVE"].startswith("CVE")]
    return payload | {"Vulnerability": kept}


@kind("msrc_date_back", INDEX, "each CurrentReleaseDate is `size` days back, two by default", size=2)
@of_payload
def _date_back(payload: Any, strike: Strike) -> Any:
    for entry in payload["value"]:
        said = entry["CurrentReleaseDate"]
        entry["CurrentReleaseDate"] = f"{date.fromisoformat(said[:10]) - strike.size * DAY}{said[10:]}"
    return payload


@kind("msrc_same_date", DOCUMENT, "every restart is `text` or Maybe, under the same date")
@of_payload
def _same_date(payload: Any, strike: Strike) -> Any:
    for entry in payload["Vulnerability"]:
        for remediation in entry["Remediations"]:
            if "RestartRequired" in remediation:
                remediation["RestartRequired"] = {"Value": strike.fault.text or "Maybe"}
    return payload


@kind("msrc_shrunken", DOCUMENT, "the document has a single CVE")
@of_payload
def _shrunken(payload: Any, _strike: Strike) -> Any:
    return payload | {"Vulnerability": payload["Vulnerability"][:1]}


@kind("msrc_old_names_new", DOCUMENT, "the newest update, or `text`, closes the document's first CVE, too")
@of_payload
def _old_names_new(payload: Any, strike: Strike) -> Any:
    for entry in payload["Vulnerability"][:1]:
        newest = strike.fault.text or strike.tenant.fleet.updates()[-1].id
        entry["Remediations"].append({"Type": 2, "Description": {"Value": newest}, "ProductID": []})
    return payload


@kind("kev_count", KEV, "the count is that of one entry more")
@of_payload
def _count(payload: Any, _strike: Strike) -> Any:
    return payload | {"count": payload["count"] + 1}


@kind("kev_retraction", KEV, "a catalogue of the next day, without the newest entry")
def _retraction(strike: Strike) -> Response:
    return _next_catalogue(strike, slice(1, None))


@kind("kev_half", KEV, "a catalogue of the next day, with half of the entries, and a count that fits")
def _half(strike: Strike) -> Response:
    return _next_catalogue(strike, slice(len(strike.tenant.feeds.kev.entries()) // 2))


@kind("epss_late", EPSS, "today's scores are not there yet: the current ones are yesterday's")
def _late(strike: Strike) -> Response:
    today = strike.tenant.feeds.score_date()
    response = strike.answer()
    if response.status == HTTPStatus.FOUND:
        response.headers["Location"] = response.headers["Location"].replace(str(today), str(today - DAY))
        return response
    is_todays = str(today) in strike.request.path
    return page(PAGE.format("Not Found"), HTTPStatus.NOT_FOUND) if is_todays else response


@kind("epss_older_day", SCORES, "the scores of a week before")
def _older_day(strike: Strike) -> Response:
    feeds = strike.tenant.feeds
    return Response(HTTPStatus.OK, feeds.scores(feeds.score_date() - 7 * DAY))


@kind("epss_not_gzip", SCORES, "the scores as plain text")
def _not_gzip(strike: Strike) -> Response:
    return _lines(strike, packs=False)


@kind("epss_old_header", SCORES, "the moment in the first line ends with +0000, as before 2022")
def _old_header(strike: Strike) -> Response:
    return _lines(strike, zone="+0000")


@kind("epss_no_header", SCORES, "no line about the model, as before 2022")
def _no_header(strike: Strike) -> Response:
    return _lines(strike, zone=None)


@kind("epss_no_percentile", SCORES, "no percentiles, as before September 2021")
def _no_percentile(strike: Strike) -> Response:
    return _lines(strike, columns="cve,epss", zone=None)


def _lines(
    strike: Strike, *, zone: str | None = "Z", columns: str = "cve,epss,percentile", packs: bool = True
) -> Response:
    """Today's scores, written otherwise."""
    scores, today = strike.tenant.feeds.epss, strike.tenant.feeds.score_date()
    head = "" if zone is None else scores.head(today).replace("Z\n", f"{zone}\n")
    text = head + scores.text(today, columns)
    return Response(HTTPStatus.OK, packed(text) if packs else text.encode())


@kind("feed_forbidden", "/*", "403 with a page of HTML, as cisa.gov gives to clouds; of any feed", feed=True)
def _forbidden(strike: Strike) -> Response:
    return page(PAGE.format(strike.fault.text or "Access Denied"), HTTPStatus.FORBIDDEN)


@kind("feed_shape", "/*", "200 with JSON of another shape; of any feed", feed=True)
def _shape(_strike: Strike) -> Response:
    return _json(b'{"value": {"vulnerabilities": 7}, "Vulnerability": "none", "count": []}')

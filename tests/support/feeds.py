"""The three feeds' hosts on loopback, as far as a tap needs them; and documents as they are served."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mde_simulator.http import certificates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    from mde_simulator import Simulator

MSRC, KEV, EPSS = "/cvrf/v3.0", "/feeds/known_exploited_vulnerabilities.json", "/epss_scores-current.csv.gz"


class Feeds:
    """A server with a body, or something stranger, for each path; from `with` to its end.

    Args:
        folder: For its certificate.

    Attributes:
        bodies: By path what is answered: bytes; a status; or a function that is given the handler. Others are 404.
        asked: The requests so far: paths.
        headers: The headers of these.
        most: How many were in flight at once at most.
    """

    def __init__(self, folder: Path) -> None:
        self.bodies: dict[str, bytes | int | Callable[[http.server.BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.most = 0
        self._now = 0
        self._folder = folder
        context = certificates.make(folder)
        self.environment = {"REQUESTS_CA_BUNDLE": str(certificates.write_bundle(folder, {}))}
        feeds = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                feeds._now += 1
                feeds.most = max(feeds.most, feeds._now)
                try:
                    feeds.answer(self)
                except OSError:
                    self.close_connection = True  # the client has had enough
                finally:
                    feeds._now -= 1

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        self.asked.append(handler.path)
        self.headers.append(dict(handler.headers))
        body = self.bodies.get(handler.path, 404)
        if callable(body):
            body(handler)
            return
        status, content = (body, b"<html>no</html>") if isinstance(body, int) else (200, body)
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def trusting(self, simulator: Simulator) -> dict[str, str]:
        """The variable that makes clients trust these hosts, and a simulator."""
        bundle = self._folder / "all.pem"
        parts = (simulator.ca_file, self.environment["REQUESTS_CA_BUNDLE"])
        bundle.write_text("\n".join(Path(part).read_text() for part in parts))
        return {"REQUESTS_CA_BUNDLE": str(bundle)}

    @property
    def config(self) -> dict[str, Any]:
        """The settings with which a tap reads all three."""
        return {
            "advisory_feeds": ["msrc", "kev", "epss"],
            "msrc_url": self.url + MSRC,
            "kev_url": self.url + KEV,
            "epss_url": self.url + EPSS,
        }

    def serve(self, *documents: dict[str, Any], kev: dict[str, Any] | None = None, epss: bytes | None = None) -> None:
        """Serve these documents, with an index of them, and a catalogue and scores."""
        listed = []
        for document in documents:
            tracking = document["DocumentTracking"]
            document_id = tracking["Identification"]["ID"]["Value"]
            released = f"{tracking['CurrentReleaseDate'].rstrip('Z')}Z"
            listed.append({"ID": document_id, "CurrentReleaseDate": released, "Severity": None})
            self.bodies[f"{MSRC}/cvrf/{document_id}"] = json.dumps(document).encode()
        if documents:
            self.bodies[f"{MSRC}/updates"] = json.dumps({"value": sorted(listed, key=lambda each: each["ID"])}).encode()
        if kev is not None:
            self.bodies[KEV] = json.dumps(kev).encode()
        if epss is not None:
            self.bodies[EPSS] = gzip.compress(epss)


def document(
    document_id: str, *vulnerabilities: dict[str, Any], released: str = "2026-06-10T07:00:00"
) -> dict[str, Any]:
    """A document of MSRC's."""
    return {
        "DocumentTitle": {"Value": f"{document_id} Security Updates"},
        "DocumentTracking": {
            "Identification": {"ID": {"Value": document_id}, "Alias": {"Value": document_id}},
            "CurrentReleaseDate": released,
        },
        "ProductTree": {
            "Branch": [],
            "FullProductName": [
                {"ProductID": "11", "Value": "Windows 11 Version 24H2 for x64-based Systems"},
                {"ProductID": "16", "Value": "Microsoft Office 2016 (64-bit edition)"},
            ],
        },
        "Vulnerability": [*vulnerabilities],
    }


def vulnerability(
    cve: str,
    *fixes: dict[str, Any],
    revisions: Sequence[tuple[str, str]] = (("1.0", "2026-06-09T07:00:00"),),
    threats: Sequence[tuple[int, str]] = (
        (3, "Important"),
        (1, "Publicly Disclosed:No;Exploited:No;Latest:Less Likely"),
    ),
    scores: Sequence[tuple[float, str]] = ((7.8, "CVSS:3.1/AV:L"),),
    **more: Any,
) -> dict[str, Any]:
    """One of its entries."""
    return {
        "CVE": cve,
        "Title": {"Value": f"{cve} Elevation of Privilege"},
        "ReleaseDate": "0001-01-01T00:00:00",
        "Notes": [{"Title": "Windows", "Type": 7, "Ordinal": "20", "Value": "Windows"}],
        "Threats": [{"Type": kind, "Description": {"Value": text}, "ProductID": ["11"]} for kind, text in threats],
        "CVSSScoreSets": [{"BaseScore": score, "Vector": vector, "ProductID": ["11"]} for score, vector in scores],
        "Remediations": [*fixes],
        "RevisionHistory": [{"Number": number, "Date": day} for number, day in revisions],
        **more,
    }


def fix(
    kb: str | None, supersedes: str | None = None, *, restart: str | None = "Yes", kind: int = 2, **more: Any
) -> dict[str, Any]:
    """A remediation: an update, unless its kind is another."""
    return {
        "Type": kind,
        **({} if kb is None else {"Description": {"Value": kb}}),
        "URL": f"https://catalog.update.microsoft.com/v7/site/Search.aspx?q=KB{kb}",
        **({} if supersedes is None else {"Supercedence": supersedes}),
        **({} if restart is None else {"RestartRequired": {"Value": restart}}),
        "SubType": "Security Update",
        "FixedBuild": "10.0.26100.4349",
        "ProductID": ["11"],
        **more,
    }


def catalogue(*cves: str, released: str = "2026-06-12T17:46:43.6019Z", **more: Any) -> dict[str, Any]:
    """CISA's."""
    entries = [
        {
            "cveID": cve,
            "vendorProject": "Microsoft",
            "product": "Windows",
            "vulnerabilityName": f"{cve} in Windows",
            "dateAdded": "2026-06-11",
            "shortDescription": "…",
            "requiredAction": "Apply updates.",
            "dueDate": "2026-07-02",
            "knownRansomwareCampaignUse": "Unknown",
            "notes": "",
            "cwes": [],
        }
        for cve in cves
    ]
    return {"title": "CISA", "dateReleased": released, "count": len(entries), "vulnerabilities": entries, **more}


def scores(*lines: str, day: str = "2026-06-12", columns: str = "cve,epss,percentile") -> bytes:
    """FIRST's."""
    head = f"#model_version:v2026.06.15,score_date:{day}T12:55:00Z\n" if day else ""
    return (head + columns + "\n" + "".join(f"{line}\n" for line in lines)).encode()

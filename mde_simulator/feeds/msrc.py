"""MSRC's documents of the fleet's updates, and their index, as the CVRF API serves them. Knows no HTTP.

With the oddities that recorded answers have: an update in several documents, predecessors that are left out or written
in many ways, hotpatches in several spellings, Azure Linux without any KB, an advisory that lists servicing stacks,
revisions in any order, a month that appears before its Patch Tuesday.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from mde_simulator.feeds.public import DAY, draw, is_disclosed, is_exploited
from mde_simulator.fleet.catalogue import CATALOGUE_URL, WINDOWS, patch_tuesday
from mde_simulator.fleet.cves import cve, cves

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mde_simulator.fleet.fleet import Fleet
    from mde_simulator.fleet.picture import Kb

Json = dict[str, Any]

EARLY = 5
"""A month's document appears so many days before its Patch Tuesday, without a KB."""
REVISED_EVERY = 11
"""About so many days a document is released again, mostly for Azure Linux."""
SEVERITIES = {None: "None", "Low": "Low", "Medium": "Moderate", "High": "Important", "Critical": "Critical"}
"""MSRC's words for Defender's."""
HOTPATCHES = ("Security Hotpatch Update", "SecurityHotpatchUpdate", "Security HotPatch Update", "AzureHotpatch")
OLD = ("1999-Sep", "2012-Mar", "2015-FEB")
"""Release notes of Azure Linux, without any KB; there are dozens."""
PRODUCTS = {
    "windows_10": (("11929", "Windows 10 Version 22H2 for x64-based Systems"),
                   ("11930", "Windows 10 Version 22H2 for ARM64-based Systems")),
    "windows_11": (("12389", "Windows 11 Version 24H2 for x64-based Systems"),
                   ("12390", "Windows 11 Version 24H2 for ARM64-based Systems")),
    "windows_server_2016": (("10816", "Windows Server 2016"),
                            ("10855", "Windows Server 2016  (Server Core installation)")),
    "windows_server_2019": (("11571", "Windows Server 2019"),
                            ("11572", "Windows Server 2019  (Server Core installation)")),
    "windows_server_2022": (("11923", "Windows Server 2022"),
                            ("11924", "Windows Server 2022  (Server Core installation)")),
    "windows_server_2025": (("12436", "Windows Server 2025"),
                            ("12437", "Windows Server 2025  (Server Core installation)")),
    "office": (("11573", "Microsoft Office 2019 for 32-bit editions"),
               ("11574", "Microsoft Office 2019 for 64-bit editions")),
    ".net_framework": (("11676", "Microsoft .NET Framework 3.5 AND 4.8 on Windows Server 2019"),
                       ("12079", "Microsoft .NET Framework 3.5 AND 4.8.1 on Windows Server 2022")),
    "sql_server": (("12147", "Microsoft SQL Server 2022 for x64-based Systems (GDR)"),),
    "exchange_server": (("12293", "Microsoft Exchange Server 2019 Cumulative Update 14"),),
    "linux": (("19089", "azl3 kernel 6.6.57.1-6 on Azure Linux 3.0"),),
}  # fmt: skip
"""MSRC's ids and names of what the fleet's machines have."""
WITHOUT_LINK = {"office": 13, ".net_framework": 90, "sql_server": 69}
"""Of a hundred updates so many name no predecessor; of others 21."""
VECTOR = "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"
RESTART = {True: "Yes", False: "Maybe"}


@dataclass(frozen=True)
class Fix:
    """That a document says of an update that it closes a CVE."""

    kb: Kb
    cve_id: str


class Documents:
    """The documents as they are on the fleet's day.

    Args:
        fleet: Whose updates they are about.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    # The truth

    def months(self, day: int | None = None) -> dict[str, date]:
        """The documents by id, with the first day of their month; the newest may be there before its Patch Tuesday."""
        today = self._today(day)
        first = min(kb.published for kb in self._fleet.updates(day)).replace(day=1)
        found = {}
        while patch_tuesday(first.year, first.month) - EARLY * DAY <= today:
            found[f"{first:%Y-%b}"] = first
            first = (first + 31 * DAY).replace(day=1)
        return found

    def fixes(self, day: int | None = None) -> dict[str, list[Fix]]:
        """By document, which update closes which CVE; advisories are none."""
        found: dict[str, list[Fix]] = {id_: [] for id_ in self.months(day)}
        for kb in self._fleet.updates(day):
            found[f"{kb.published:%Y-%b}"] += [Fix(kb, each.id) for each in cves(kb)]
            older = f"{(kb.published.replace(day=1) - 40 * DAY):%Y-%b}"
            if kb.product == "windows_10" and older in found and draw("old", kb.id, 3) == 0 and found[older]:
                found[older].append(Fix(kb, found[older][0].cve_id))
        return found

    def published(self, day: int | None = None) -> dict[str, date]:
        """By CVE, the day on which it was first published: that of the first update that closes it."""
        found: dict[str, date] = {}
        for kb in self._fleet.updates(day):
            for each in cves(kb):
                found[each.id] = min(kb.published, found.get(each.id, kb.published))
        return found

    def predecessors(self, day: int | None = None) -> dict[str, tuple[str, ...]]:
        """By update, those that MSRC says it replaces: the one before it for the same product, or the two before."""
        before: dict[tuple[str, bool], list[str]] = defaultdict(list)
        found: dict[str, tuple[str, ...]] = {}
        for kb in sorted(self._fleet.updates(day), key=lambda kb: (kb.published, kb.id)):
            line = before[kb.product, kb.is_hotpatch]
            share = WITHOUT_LINK.get(kb.product, 21)
            if not line or draw("link", kb.id, 100) < share:
                found[kb.id] = ()
            else:
                found[kb.id] = tuple(line[-2:] if draw("two", kb.id, 6) == 0 else line[-1:])
            line.append(kb.id)
        return found

    def released(self, document_id: str, day: int | None = None) -> datetime:
        """When a document was released last, UTC."""
        today, first = self._today(day), self.months(day).get(document_id)
        if first is None:
            return datetime(int(document_id[:4]), 12, 1, 8)  # noqa: DTZ001 - as the documents have it
        tuesday = patch_tuesday(first.year, first.month)
        if today < tuesday:
            return datetime.combine(tuesday - EARLY * DAY, time(8))
        since = (today - tuesday).days
        shift = draw("revised", document_id, REVISED_EVERY)
        last = max(0, (since - shift) // REVISED_EVERY * REVISED_EVERY + shift) if since >= shift else 0
        changed = max((fix.kb.published for fix in self.fixes(day)[document_id]), default=tuesday)
        return datetime.combine(max(tuesday + last * DAY, changed), time(7, 0, draw("second", document_id, 60)))

    # As they are served

    def index(self, day: int | None = None) -> Json:
        """The answer of `/updates`: every document, sorted by its id as text."""
        ids = sorted([*self.months(day), *OLD])
        return {
            "@odata.context": "https://api.msrc.microsoft.com/cvrf/v3.0/$metadata#Updates",
            "value": [
                {
                    "ID": id_,
                    "Alias": id_,
                    "DocumentTitle": self.title(id_, day),
                    "Severity": None,
                    "InitialReleaseDate": f"{self._initial(id_, day):%Y-%m-%dT%H:%M:%SZ}",
                    "CurrentReleaseDate": f"{self.released(id_, day):%Y-%m-%dT%H:%M:%SZ}",
                    "CvrfUrl": f"https://api.msrc.microsoft.com/cvrf/v3.0/cvrf/{id_}",
                }
                for id_ in ids
            ],
        }

    def title(self, document_id: str, day: int | None = None) -> str:
        """The document's, which Defender gives to the updates as their name."""
        first = self.months(day).get(document_id)
        if first is None:
            return "Mariner Release Notes"
        early = "" if self._today(day) >= patch_tuesday(first.year, first.month) else "Early "
        return f"{first:%B %Y} {early}Security Updates"

    def document(self, document_id: str, day: int | None = None) -> Json | None:
        """A document; None if there is none of that id."""
        first = self.months(day).get(document_id)
        if first is None and document_id not in OLD:
            return None
        by_cve: dict[str, list[Kb]] = defaultdict(list)
        for fix in self.fixes(day).get(document_id, ()):
            by_cve[fix.cve_id].append(fix.kb)
        links, published = self.predecessors(day), self.published(day)
        entries = [self._vulnerability(id_, kbs, links, published[id_], day) for id_, kbs in by_cve.items()]
        released = self.released(document_id, day)
        zone = "Z" if draw("zone", document_id, 4) == 0 else ""  # UTC with or without
        return {
            "DocumentTitle": {"Value": self.title(document_id, day)},
            "DocumentType": {"Value": "Security Update"},
            "DocumentTracking": {
                "Identification": {"ID": {"Value": document_id}, "Alias": {"Value": document_id}},
                "Status": 2,
                "Version": "1.0",
                "RevisionHistory": [{"Number": "1.0", "Date": f"{released:%Y-%m-%dT%H:%M:%S}"}],
                "InitialReleaseDate": f"{self._initial(document_id, day):%Y-%m-%dT%H:%M:%S}{zone}",
                "CurrentReleaseDate": f"{released:%Y-%m-%dT%H:%M:%S}{zone}",
            },
            "ProductTree": {
                "Branch": [{"Type": 0, "Name": "Microsoft", "Items": []}],
                "FullProductName": [
                    {"ProductID": id_, "Value": name} for named in PRODUCTS.values() for id_, name in named
                ],
            },
            "Vulnerability": [*entries, *self._without_kb(document_id, first, released, is_early=not by_cve)],
        }

    # Parts of a document

    def _vulnerability(
        self, cve_id: str, kbs: list[Kb], links: dict[str, tuple[str, ...]], published: date, day: int | None
    ) -> Json:
        facts, ids = cve(cve_id), [id_ for kb in kbs for id_, _ in PRODUCTS[kb.product]]
        said = {True: "Yes", False: "No"}
        impact = (
            f"Publicly Disclosed:{said[is_disclosed(cve_id)]};Exploited:{said[is_exploited(cve_id)]};"
            "Latest Software Release:Exploitation Less Likely"
            if draw("impact", cve_id, 25) or is_exploited(cve_id) or is_disclosed(cve_id)
            else "DOS:N/A"
        )
        threats = [{"Type": 3, "ProductID": [id_], "Description": {"Value": SEVERITIES[facts.severity(0)]}}
                   for id_ in dict.fromkeys(ids)]  # fmt: skip
        score = {"BaseScore": facts.score, "TemporalScore": facts.score, "Vector": VECTOR, "ProductID": ids[:1]}
        return {
            "Title": {"Value": f"{kbs[0].product} elevation of privilege vulnerability"},
            "Notes": [{"Title": "Windows", "Type": 7, "Ordinal": "20", "Value": "Windows"},
                      {"Title": "Microsoft", "Type": 8, "Ordinal": "30", "Value": "Microsoft"}],
            "DiscoveryDateSpecified": False,
            "ReleaseDateSpecified": False,
            "CVE": cve_id,
            "ProductStatuses": [{"ProductID": ids, "Type": 3}],
            "Threats": [{"Type": 0, "ProductID": ids[:1], "Description": {"Value": "Elevation of Privilege"}}, *threats,
                        {"Type": 1, "Description": {"Value": impact}}],
            "CVSSScoreSets": [] if facts.score is None else [score],
            "Remediations": [
                *(remediation for kb in kbs for remediation in _remediations(kb, links[kb.id])),
                {"Type": 1, "ProductID": [], "Description": {"Value": "Turn the feature off."}},
            ],
            "RevisionHistory": [*self._revisions(cve_id, kbs, published, day)],
            "Ordinal": "1",
            "ReleaseDate": "0001-01-01T00:00:00",
        }  # fmt: skip

    def _revisions(self, cve_id: str, kbs: Iterable[Kb], published: date, day: int | None) -> Iterator[Json]:
        """Not in order; 2.0 where an update was added, or for another reason."""
        added = max(kb.published for kb in kbs)
        days = {"1.0": published}
        if draw("informational", cve_id, 3) == 0:
            days["1.1"] = published + 2 * DAY
        if added > published:
            days["2.0"] = added
        elif draw("major", cve_id, 9) == 0:
            days["2.0"] = published + 14 * DAY
        for number, when in reversed(days.items()):
            if when <= self._today(day):
                yield {"Number": number, "Date": f"{when}T07:00:00", "Description": {"Value": "<p>Published.</p>"}}

    def _without_kb(
        self, document_id: str, first: date | None, released: datetime, *, is_early: bool
    ) -> Iterator[Json]:
        """What no update closes: Azure Linux, software that updates itself, and the advisory of servicing stacks."""
        year = first.year if first else int(document_id[:4])
        number = 50_000 + draw("linux", document_id, 4_000) * 10
        for n in range(3 + released.day % 5):
            yield _plain(f"CVE-{year}-{number + n}", "CBL-Mariner Releases", "Mariner", ("19089",))
        if first is None:
            return
        yield _plain(f"CVE-{year}-{number + 8}", "Click to Run", "Microsoft Office", ("11573",))
        yield _plain(f"CVE-{year}-{number + 9}", None, "Azure", ())
        if not is_early and draw("stacks", document_id, 3) == 0:
            stacks = [str(5_020_000 + draw("stack", f"{document_id}{product}", 9_999)) for product in WINDOWS]
            advisory = _plain("ADV990001", None, "Servicing Stack Updates", ())
            advisory["Remediations"] = [
                {"Type": 2, "Description": {"Value": stack}, "SubType": "ServicingStackUpdate",
                 "ProductID": [PRODUCTS[product][0][0]]}
                for stack, product in zip(stacks, WINDOWS, strict=True)
            ]  # fmt: skip
            yield advisory

    def _initial(self, document_id: str, day: int | None) -> datetime:
        first = self.months(day).get(document_id)
        return (
            datetime.combine(patch_tuesday(first.year, first.month), time(7)) if first else self.released(document_id)
        )

    def _today(self, day: int | None) -> date:
        return self._fleet.start + timedelta(days=self._fleet.day if day is None else day)


def _remediations(kb: Kb, replaces: tuple[str, ...]) -> Iterator[Json]:
    """The update, and the links that stand beside it."""
    fix: Json = {
        "Description": {"Value": f"KB{kb.id}" if draw("prefix", kb.id, 12) == 0 else kb.id},
        "URL": f"{CATALOGUE_URL}{kb.id}",
        "ProductID": [id_ for id_, _ in PRODUCTS[kb.product]],
        "Type": 2,
        "DateSpecified": False,
        "SubType": _sub_type(kb),
    }
    if replaces:
        fix["Supercedence"] = ("; ", "<br><br>", ", ", "\r\n")[draw("form", kb.id, 4)].join(replaces)
    restart = "No" if kb.is_hotpatch else RESTART[kb.product in WINDOWS]
    if draw("restart", kb.id, 40):
        fix["RestartRequired"] = {"Value": restart}
    if kb.product in WINDOWS:
        fix["FixedBuild"] = f"10.0.{WINDOWS[kb.product]}.{1_000 + draw('build', kb.id, 8_000)}"
    yield fix
    yield {
        "Type": 3,
        "Description": {"Value": kb.id},
        "URL": f"https://support.microsoft.com/help/{kb.id}",
        "ProductID": [],
    }


def _sub_type(kb: Kb) -> str:
    if kb.is_hotpatch:
        return HOTPATCHES[draw("hotpatch", kb.id, len(HOTPATCHES))]
    return "Cumulative Update" if kb.product in WINDOWS and draw("kind", kb.id, 8) == 0 else "Security Update"


def _plain(name: str, fix: str | None, tag: str, ids: tuple[str, ...]) -> Json:
    """An entry without a KB."""
    remediation: Json = {"Type": 2, "ProductID": [*ids]}
    if fix is not None:
        remediation["Description"] = {"Value": fix}
    return {
        "Title": {"Value": f"{name} in {tag}"},
        "Notes": [{"Title": tag, "Type": 7, "Ordinal": "20", "Value": tag}],
        "CVE": name,
        "Threats": [],
        "CVSSScoreSets": [],
        "Remediations": [remediation],
        "RevisionHistory": [{"Number": "1.0", "Date": "2025-01-02T08:00:00"}],
        "ReleaseDate": "0001-01-01T00:00:00",
    }

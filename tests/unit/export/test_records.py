"""Records of an export, grouped: written by hand, so that every oddity of a record can be."""

from __future__ import annotations

import gzip
import json
import stat
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from tap_mde_kbs import schema
from tap_mde_kbs.errors import MalformedFileError, SettingsError, TapError
from tap_mde_kbs.export import records as module
from tap_mde_kbs.export.records import PROPERTIES, Records, require_duckdb, spellings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path


def record(device: str, kb: str | None, cve: str | None, **others: Any) -> dict[str, Any]:
    """A record as a JSON answer spells it; what is None is left out, as files do."""
    fields = {
        "deviceId": device,
        "recommendedSecurityUpdateId": kb,
        "cveId": cve,
        "softwareVendor": "microsoft",
        "softwareName": "windows_10",
        "osPlatform": "Windows10",
        **others,
    }
    return {name: value for name, value in fields.items() if value is not None}


def pascal(fields: dict[str, Any]) -> dict[str, Any]:
    """The same as files spell it."""
    return {name[0].upper() + name[1:]: value for name, value in fields.items()}


class Said(dict[str, Any]):
    """A record, for a test's name: what it leaves out is shown so."""

    def __missing__(self, name: str) -> str:
        return f"no-{name}"


@pytest.fixture
def records() -> Iterator[Records]:
    """No record yet."""
    with Records() as found:
        yield found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a file of an export may be."""
    return tmp_path / "part-0.json.gz"


def write(file: Path, text: str) -> Path:
    """A gzip file."""
    file.write_bytes(gzip.compress(text.encode()))
    return file


def lines(*found: dict[str, Any]) -> str:
    """One object a line."""
    return "".join(json.dumps(pascal(one)) + "\n" for one in found)


def missed(records: Records, column: str) -> list[tuple[str, Any]]:
    """A column of every missing update, each with its machine."""
    return [(machine_id, kb[column]) for machine_id, kbs in records.missing() for kb in kbs]


def test_an_update_is_missing_once_however_many_records_say_so(records: Records, file: Path) -> None:
    """Distinct CVEs and products; the earliest of the times; name and link from wherever they are."""
    link = {"recommendedSecurityUpdateUrl": "https://example.com/1", "recommendedSecurityUpdate": "March 2026"}
    text = lines(
        record("b", "100", "CVE-1", firstSeenTimestamp="2026-01-03 10:00:00.1234567"),
        record("b", "100", "CVE-1", firstSeenTimestamp="2026-01-02T10:00:00Z", rbacGroupName="another"),
        record("b", "100", "CVE-2", softwareName="edge", **link),
        record("a", "100", "CVE-1"),
    )
    records.load(write(file, text))
    assert records.count == 4
    a = {"machine_id": "a", "id": "100", "name": None, "url": None, "first_seen_at": None}
    b = {
        "machine_id": "b",
        "id": "100",
        "name": "March 2026",
        "url": "https://example.com/1",
        "first_seen_at": "2026-01-02T10:00:00Z",
    }
    assert list(records.missing()) == [
        ("a", [{**a, "products_names": ["windows_10"], "machine_missed_on": 2, "cve_addressed": 1}]),
        ("b", [{**b, "products_names": ["edge", "windows_10"], "machine_missed_on": 2, "cve_addressed": 2}]),
    ]


def test_products_without_a_name_are_left_out(records: Records, file: Path) -> None:
    unnamed = lines(record("a", "100", "CVE-1", softwareName=""), record("a", "100", "CVE-2", softwareName=None))
    records.load(write(file, unnamed))
    assert missed(records, "products_names") == [("a", [])]


@pytest.mark.parametrize(
    "other",
    [
        record("a", None, "CVE-1"),
        record("a", "", "CVE-1"),
        record("a", "100", None),
        record("a", "100", "CVE-1", softwareVendor="mozilla"),
        record("a", "100", "CVE-1", softwareVendor=None),
        record("a", "100", "CVE-1", status="Fixed"),
        record("a", "100", "CVE-1", status=" fixed "),
        record("a", "--", "CVE-1"),
        record("a", "N/A", "CVE-1"),
        record("a", "Release Notes", "CVE-1"),
        record("a", "KB", "CVE-1"),
        record("a", " ", "CVE-1"),
        record("a", "5065429.1", "CVE-1"),
        record("a", "KB5065429, KB5065430", "CVE-1"),
    ],
    ids=lambda other: "{recommendedSecurityUpdateId} {cveId} {softwareVendor} {status}".format_map(Said(other)),
)
def test_what_is_no_missing_update_still_says_that_the_machine_is_there(
    records: Records, file: Path, other: dict[str, Any]
) -> None:
    records.load(write(file, lines(other)))
    assert list(records.missing()) == [("a", [])]
    assert records.machines() == ["a"]
    assert list(records.kb_cves()) == []


def test_a_record_without_a_machine_is_nobodys(records: Records, file: Path) -> None:
    records.load(write(file, lines(record("", "100", "CVE-1"), record("a", "100", "CVE-1"))))
    assert missed(records, "machine_missed_on") == [("a", 1)]


def test_the_number_of_an_update_may_be_a_number(records: Records, file: Path) -> None:
    one = record("a", None, "CVE-1", recommendedSecurityUpdateId=100, cvssScore="7.8")
    records.load(write(file, lines(one)))
    assert missed(records, "id") == [("a", "100")]
    assert [cve["cvss_score"] for cve in records.kb_cves()] == [7.8]


@pytest.mark.parametrize("spelled", ["5065429", "KB5065429", " kb5065429 ", "\tKb 5065429", "5065429\u00a0", 5065429])
def test_an_update_has_its_number_however_it_is_spelled(records: Records, file: Path, spelled: object) -> None:
    """So its records are one update's, and count together."""
    one = record("a", None, "CVE-1", recommendedSecurityUpdateId=spelled)
    records.load(write(file, lines(one, record("a", "5065429", "CVE-2"), record("b", "5065429", "CVE-1"))))
    assert missed(records, "id") == [("a", "5065429"), ("b", "5065429")]
    assert missed(records, "machine_missed_on") == [("a", 2), ("b", 2)]
    assert missed(records, "cve_addressed") == [("a", 2), ("b", 1)]
    assert [(cve["kb_id"], cve["cve_id"]) for cve in records.kb_cves()] == [("5065429", "CVE-1"), ("5065429", "CVE-2")]


def test_the_earliest_time_is_so_however_it_is_spelled(records: Records, file: Path) -> None:
    """A blank sorts before a T; both in one file, and over two."""
    spelled = ("2024-01-02 10:00:00", "2024-01-02T09:00:00", "2024-01-02 11:00:00")
    records.load(write(file, lines(*(record("a", "100", "CVE-1", firstSeenTimestamp=time) for time in spelled))))
    assert missed(records, "first_seen_at") == [("a", "2024-01-02T09:00:00")]


@pytest.mark.parametrize("status", ["New", "Updated", "", None])
def test_what_a_delta_says_is_new_is_missing(records: Records, file: Path, status: str | None) -> None:
    records.load(write(file, lines(record("a", "100", "CVE-1", status=status))))
    assert missed(records, "id") == [("a", "100")]


def test_a_time_that_can_not_be_is_not_the_earliest(records: Records, file: Path) -> None:
    """What .NET makes of no date, and an empty text."""
    odd = ["0001-01-01 00:00:00.0000000", "", None, " ", "1999-12-31T23:59:59Z"]
    found = [record("a", "100", "CVE-1", firstSeenTimestamp=time) for time in (*odd, "2026-01-03 10:00:00")]
    found += [record("b", "100", "CVE-1", firstSeenTimestamp=time) for time in odd]
    records.load(write(file, lines(*found)))
    assert missed(records, "first_seen_at") == [("a", "2026-01-03T10:00:00"), ("b", None)]


HALF = '{"DeviceId": "c", "DiskPaths": ["C:\\ud800.exe"]}\n'
BYTES = '{"DeviceId": "c", "SoftwareName": "M\xfcller"}\n'


@pytest.mark.parametrize(
    "content",
    [
        lambda whole: b"\xef\xbb\xbf" + whole,
        lambda whole: whole + HALF.encode(),
        lambda whole: HALF.encode() + whole,
        lambda whole: whole + BYTES.encode("latin-1"),
        lambda whole: whole + b'{"DeviceId": "c", "DiskPaths": "C:\\Users"}',
        lambda whole: whole + b'{"DeviceId": "c", "SoftwareName": "a\x01b"}',
        lambda whole: b"\xef\xbb\xbf[" + whole.strip().replace(b"\n", b",") + b"]",
    ],
    ids=["a byte order mark", "half a character", "at once", "Latin-1", "a lone backslash", "a control", "an array"],
)
def test_one_broken_text_is_not_a_broken_file(records: Records, file: Path, content: Callable[[bytes], bytes]) -> None:
    whole = lines(record("a", "100", "CVE-1"), record("b", "100", "CVE-1"))
    file.write_bytes(gzip.compress(content(whole.encode())))
    takes_marks = duckdb.__version__ >= "2" and content(b"{").startswith(b"\xef\xbb\xbf{")  # nothing to mend then
    assert records.load(file) == (0 if takes_marks else 1)
    assert missed(records, "id") == [("a", "100"), ("b", "100")]
    assert {"a", "b"} <= set(records.machines()) <= {"a", "b", "c"}
    assert [*records.folder.glob("*mended*"), *file.parent.glob("*mended*")] == []


def test_text_that_is_read_is_mended_where_it_is_broken(records: Records, file: Path) -> None:
    broken = lines(record("a", "100", "CVE-1", softwareName="M\ud800\u00fc"))
    assert records.load(write(file, broken)) == 1
    assert missed(records, "products_names") == [("a", ["M\ufffd\u00fc"])]


def test_a_page_is_mended_too(records: Records) -> None:
    assert records.add([record("a", "100", "CVE-1", softwareName="\udc00")]) == 1
    assert missed(records, "products_names") == [("a", ["\ufffd"])]


def test_a_file_that_is_broken_and_cut_is_still_malformed(records: Records, file: Path) -> None:
    file.write_bytes(gzip.compress(b"\xef\xbb\xbf" + lines(record("a", "100", "CVE-1"))[:-5].encode()))
    with pytest.raises(MalformedFileError):
        records.load(file)
    assert records.machines() == []


@pytest.mark.parametrize("other", [dict, str.upper], ids=["camelCase", "UPPER"])
@pytest.mark.parametrize("first", [True, False], ids=["at the beginning", "at the end"])
def test_another_spelling_is_read_wherever_in_the_file_it_is(
    records: Records, file: Path, other: Callable[..., Any], *, first: bool
) -> None:
    """More than a megabyte away from the others; and a record of nobody, in either, is still nobody's."""
    one = record("zz", "200", "CVE-1", status=None)
    odd = json.dumps(one if other is dict else {name.upper(): value for name, value in one.items()})
    many = [record(f"{number:05}", "100", "CVE-1", diskPaths="x" * 900) for number in range(2_000)]
    usual = lines(*many, record("", "100", "CVE-1"), {"softwareVendor": "microsoft"}, {"rbacGroupName": "none"})
    records.load(write(file, f"{odd}\n{usual}" if first else f"{usual}{odd}\n"))
    assert records.count == 2_001
    assert missed(records, "id")[-2:] == [("01999", "100"), ("zz", "200")]


def test_the_whole_of_a_file_is_looked_at_only_where_a_record_is_strange(
    records: Records, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int | None] = []

    def names_in(path: Path, most: int | None = None) -> set[str]:
        looked.append(most)
        return module_names_in(path, most)

    module_names_in = module.names_in
    monkeypatch.setattr(module, "names_in", names_in)
    nobody = {"softwareVendor": "microsoft", "cveId": "CVE-1"}
    for _ in range(2):
        records.load(write(file, lines(record("a", "100", "CVE-1"), nobody)))
    assert looked == [module.SAMPLE_BYTES] * 2
    records.load(write(file, lines({}, record("a", "100", "CVE-1"))))
    assert looked == [module.SAMPLE_BYTES] * 3 + [None]


def test_a_cve_is_as_bad_as_on_the_worst_of_machines(records: Records, file: Path) -> None:
    """Each by its own worst; words that nobody knows are no worse than the least, and none is none."""

    def known(severity: str | None, score: float | None, level: str | None, cve: str = "CVE-1") -> dict[str, Any]:
        levels = {"vulnerabilitySeverityLevel": severity, "cvssScore": score, "exploitabilityLevel": level}
        return record("a", "100", cve, **levels)

    text = lines(
        known("Low", 9.1, "ExploitIsInKit"),
        known("Critical", 4.0, "NoExploit"),
        known("Unheard", None, "ExploitIsVerified"),
        known("Unheard", None, None, "CVE-2"),
        known(None, None, "ExploitIsPublic", "CVE-2"),
        known(None, 0, "NoExploit", "CVE-3"),
        known("", None, "", "CVE-3"),
        record("a", "100", "CVE-3", cvssScore="NaN"),
        record("b", "100", "CVE-3", cvssScore="high"),
    )
    records.load(write(file, text))
    assert [tuple(cve.values()) for cve in records.kb_cves()] == [
        ("100", "CVE-1", "Critical", 9.1, "ExploitIsInKit"),
        ("100", "CVE-2", "Unheard", None, "ExploitIsPublic"),
        ("100", "CVE-3", None, 0.0, "NoExploit"),
    ]
    assert [*next(records.kb_cves()), "checked_at"] == [*schema.KB_CVES.schema["properties"]]


@pytest.mark.parametrize(
    "text",
    [
        lines(record("a", "100", "CVE-1"), record("b", "100", "CVE-1")),
        lines(record("a", "100", "CVE-1"), record("b", "100", "CVE-1")).replace("\n", ""),
        lines(record("a", "100", "CVE-1"), record("b", "100", "CVE-1")).replace("\n", "\r\n"),
        json.dumps(pascal(record("a", "100", "CVE-1")), indent=2) + json.dumps(pascal(record("b", "100", "CVE-1"))),
        json.dumps(record("a", "100", "CVE-1")) + json.dumps(record("b", "100", "CVE-1")),
        json.dumps(pascal(record("a", "100", "CVE-1"))) + json.dumps(record("b", "100", "CVE-1")),
        json.dumps([pascal(record("a", "100", "CVE-1")), pascal(record("b", "100", "CVE-1"))]),
        json.dumps({name.upper(): value for name, value in record("a", "100", "CVE-1").items()})
        + json.dumps({name.upper(): value for name, value in record("b", "100", "CVE-1").items()}),
    ],
    ids=["lines", "no lines", "CRLF", "spanning lines", "camelCase", "both cases", "an array", "upper case"],
)
def test_every_way_to_write_the_same_is_read(records: Records, file: Path, text: str) -> None:
    records.load(write(file, text))
    assert records.count == 2
    assert missed(records, "id") == [("a", "100"), ("b", "100")]


@pytest.mark.parametrize(
    "text",
    [
        '{"DeviceId": "a"}\n{"DeviceId": "b", "Cve\n',
        '{"DeviceId": "a"}\n17\n',
        '{"DeviceId": "a"}\nnot JSON\n',
        '{"Device": "a"}\n',
        "<html></html>",
        '{"value": []}',
        'null\n{"DeviceId": "a"}\n',
        '{"DeviceId": "a"}\nnull\n{"DeviceId": "b"}\n',
    ],
    ids=["cut", "a number", "a word", "another property", "a page", "an answer", "null first", "null between"],
)
def test_of_a_malformed_file_nothing_is_taken(records: Records, file: Path, text: str) -> None:
    with pytest.raises(MalformedFileError):
        records.load(write(file, text))
    assert records.machines() == []
    records.load(write(file, lines(record("a", "100", "CVE-1"))))
    assert records.machines() == ["a"]


def test_a_property_that_the_beginning_leaves_out_is_spelled_like_the_rest() -> None:
    """Files leave out what is null: the first megabyte may have no CVSS score."""
    [names] = spellings({"DeviceId", "Cveid"})
    assert names == {
        **{name: name[0].upper() + name[1:] for name in PROPERTIES},
        "cveId": "Cveid",
    }
    [names] = spellings({"deviceId"})
    assert names == {name: name for name in PROPERTIES}


def test_machines_come_in_order_from_the_one_asked_for(records: Records, file: Path) -> None:
    records.load(write(file, lines(*(record(device, "100", "CVE-1") for device in "dbca"))))
    assert [device for device, _ in records.missing()] == ["a", "b", "c", "d"]
    assert [device for device, _ in records.missing("bb")] == ["c", "d"]
    assert [device for device, _ in records.missing("c")] == ["c", "d"]
    assert list(records.missing("e")) == []


def test_machines_are_grouped_a_few_at_a_time(records: Records, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what another file says of them; and whoever asks may stop in the middle."""
    monkeypatch.setattr(module, "MACHINES_AT_ONCE", 2)
    for product in ("edge", "office"):
        records.load(write(file, lines(*(record(one, "100", product, softwareName=product) for one in "gfedcba"))))
    expected = [(one, (["edge", "office"], 2, 7)) for one in "abcdefg"]
    columns = ("products_names", "cve_addressed", "machine_missed_on")
    found = [(one, tuple(kb[name] for name in columns)) for one, kbs in records.missing() for kb in kbs]
    assert found == expected
    assert next(records.missing("c"))[0] == "c"


def test_who_stops_while_the_next_machines_are_grouped_closes_nothing_under_that_query(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB 1.2 crashed with the process; 2.0 raised what hid the reason to stop, and left the folder behind."""
    monkeypatch.setattr(module, "MACHINES_AT_ONCE", 1)
    ended: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Records):
        def _asked(self, sql: str, parameters: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
            if parameters == ["b", "b"]:
                begun.set()
                go_on.wait(60)
            cursor = super()._asked(sql, parameters)
            ended.extend([1] * (parameters == ["b", "b"]))
            return cursor

    with Slow() as records:
        records.load(write(file, lines(*(record(one, "100", "CVE-1") for one in "abc"))))
        missing = records.missing()
        assert next(missing)[0] == "a"
        assert not ended
        assert begun.wait(60)
        threading.Timer(0.3, go_on.set).start()
    assert ended
    assert not records.folder.exists()


def test_what_does_not_fit_into_memory_is_read_in_passes(file: Path) -> None:
    """Each time in twice as many, those of the files after it too; every machine is in one of them."""
    found = [
        record(f"{number:03}", str(number % 7), f"CVE-{number % 5}", vulnerabilitySeverityLevel="High")
        for number in range(300)
    ]
    write(file, lines(*found, record("", "100", "CVE-1")))
    tried: list[int] = []

    class Little(Records):
        def _insert_spelled(self, path: Path, form: str, names: Mapping[str, str]) -> int:
            rows = super()._insert_spelled(path, form, names)
            tried.append(self._passes)
            if self._passes < 4:
                msg = "not enough"
                raise duckdb.OutOfMemoryException(msg)
            return rows

    with Records() as usual, Little() as little:
        for _ in range(2):
            usual.load(file)
            little.load(file)
        assert tried == [1, 2, 4, 4]
        assert little.count == usual.count == 600
        assert [*little.missing()] == [*usual.missing()]
        assert [*little.kb_cves()] == [*usual.kb_cves()]


def test_without_duckdb_a_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(SettingsError, match=r"tap-mde-kbs\[export\]"):
        require_duckdb()


def test_a_full_disk_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path) -> None:
    """DuckDB may take so little that it can't even hold one file's records; nothing is left behind."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(module, "MEMORY", "1MB")
    write(file, lines(*(record(f"{number:040}", "100", "CVE-1") for number in range(20_000))))
    with pytest.raises(TapError, match="Free some disk there, or name another folder in TMPDIR"), Records() as records:
        records.load(file)
    assert [*tmp_path.iterdir()] == [file]


def test_without_a_folder_for_temporary_files_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that is read-only from end to end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(TapError, match="TMPDIR; in a container, mount one at /tmp"):
        Records()


def test_what_lies_on_the_disk_is_this_users_alone_and_gone_at_the_end() -> None:
    """Names of machines and what they lack: nobody else may read them."""
    with Records() as records:
        folder = records.folder
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IRWXU
        assert [*folder.iterdir()]
    assert not folder.exists()


def test_loading_can_be_ended_from_another_thread(tmp_path: Path) -> None:
    """Whatever it is at; once all is closed, that does nothing."""
    path = tmp_path / "large.json"
    line = json.dumps(pascal(record("d", "KB1", "CVE-1"))) + "\n"
    path.write_text(line * 500_000)
    with Records() as records, ThreadPoolExecutor(1) as thread:
        loading = thread.submit(records.load, path)
        while not loading.done():
            records.interrupt()
            time.sleep(0.001)
        with pytest.raises(TapError, match="could not be grouped"):
            loading.result()
    records.interrupt()

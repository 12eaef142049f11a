"""Values as people give them: what a shell, a container or an editor makes of one is the same value, or it is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tap_mde_kbs.given import Reader

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = {
    "properties": {
        "text": {"type": ["string", "null"]},
        "phrase": {"type": ["string"]},
        "prose": {"type": ["string"]},
        "choice": {"type": ["string", "null"], "enum": ["per_machine", "export", None]},
        "switch": {"type": ["boolean", "null"]},
        "count": {"type": ["integer", "null"]},
        "share": {"type": "number"},
        "names": {"type": ["array", "null"], "items": {"type": "string"}},
        "maps": {"type": ["object", "null"]},
    }
}
UNSET = object()


def reader() -> Reader:
    return Reader(SCHEMA, exact=frozenset({"phrase"}), spaced=frozenset({"prose"}), prefix="TAP_X_")


def read(name: str, value: object) -> object:
    """The value that is read; `UNSET` if there is none. An error is a text that begins with `!`."""
    values, problems = reader().read({name: value})
    return f"!{problems[name]}" if problems else values.get(name, UNSET)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("text", " a b \r\n", "a b"),
        ("text", "\ufeff\u200ba\u00a0", "a"),
        ("text", '"a"', "a"),
        ("text", "'a'", "a"),
        ("text", "' a '", "a"),
        ("text", "'a' eq 'b'", "'a' eq 'b'"),
        ("text", "'", "'"),
        ("text", "\"a'", "\"a'"),
        ("text", "", UNSET),
        ("text", " \n", UNSET),
        ("text", '""', UNSET),
        ("phrase", "' a '\r\n", "' a '"),
        ("prose", "a eq 'b'\n\tor c\n", "a eq 'b' or c"),
        ("choice", "Per-Machine", "per_machine"),
        ("phrase", "\n", UNSET),
        ("choice", " Per_Machine\r", "per_machine"),
        ("choice", "other", "other"),
        *(("switch", text, True) for text in ("true", "TRUE", "yes", "Y", "on", "1", '"true"', "'t'", "true\r", " t ")),
        *(("switch", text, False) for text in ("false", "False", "no", "N", "OFF", "0", '"false"', "f\r\n")),
        ("switch", "", UNSET),
        ("switch", 1, True),
        ("switch", 0, False),
        ("count", " 12\r\n", 12),
        ("count", "+12", 12),
        ("count", "012", 12),
        ("count", 12.0, 12),
        ("count", "", UNSET),
        ("share", "2.5", 2.5),
        ("share", ".5", 0.5),
        ("share", "1e2", 100.0),
        ("share", 7, 7),
        ("names", '["a", "b"]', ["a", "b"]),
        ("names", "a, 'b',,", ["a", "b"]),
        ("names", "a", ["a"]),
        ("names", "[]", []),
        ("names", " ", UNSET),
        ("names", ["a"], ["a"]),
        ("maps", ' {"a": 1}\n', {"a": 1}),
        ("unknown", "x", "x"),
    ],
)
def test_what_stands_around_a_value_is_not_of_it(name: str, value: object, expected: object) -> None:
    assert read(name, value) == expected
    assert type(read(name, value)) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("text", "a\nb", "!a text without line breaks"),
        ("text", "a\0", "!a text without line breaks"),
        ("text", "a\udcffb", "!a text without line breaks"),
        *(
            ("switch", text, "!of type boolean: true or false")
            for text in ("perhaps", "2", "-1", "tru", "null", "yes no")
        ),
        *(
            ("count", text, "!of type integer")
            for text in ("many", "1.5", "1e3", "0x10", "1_000", "١٢", "1 000", "--1")
        ),
        *(("share", text, "!of type number, and finite") for text in ("nan", "inf", "-Infinity", "1e999", "1,5", "½")),
        ("share", float("nan"), "!of type number, and finite"),
        ("count", float("inf"), "!of type integer, and finite"),
        ("names", "[a]", "!an array in JSON"),
        ("names", "[" * 100_000, "!an array in JSON"),
        ("maps", "{a: 1}", "!an object in JSON"),
        ("maps", "[]", "!an object in JSON"),
    ],
)
def test_what_can_not_be_read_is_named_by_what_it_must_be(name: str, value: object, rule: str) -> None:
    assert str(read(name, value)).startswith(rule)
    if isinstance(value, str) and len(value) > 3:
        assert value not in str(read(name, value))


@pytest.mark.parametrize(
    ("variable", "line", "expected"),
    [
        ("from", "TAP_X_TEXT=file", {"text": "from"}),
        ("", "TAP_X_TEXT=file", {"text": "file"}),
        (" ", "export TAP_X_TEXT='file'  # why", {"text": "file"}),
        (None, "TAP_X_TEXT=a${HOME}b", {"text": "a${HOME}b"}),
        (None, "TEXT=a\nTAP_X_OTHER=b\nTAP_Y_TEXT=c", {}),
        (None, "TAP_X_TEXT", {}),
    ],
)
def test_the_environment_goes_before_the_file_and_empty_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, line: str, expected: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(line)
    assert reader().environment({} if variable is None else {"TAP_X_TEXT": variable})[0] == expected


def test_a_folder_named_dotenv_is_a_virtual_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").mkdir()
    assert reader().environment({"TAP_X_TEXT": "a"}) == ({"text": "a"}, [])


def test_a_variable_of_no_setting_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, in whatever case; not one that is empty, nor another program's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("TAP_X_TEXTT=a\nTAP_Y_TEXT=a\nTAP_X_COUNTS\n")
    given = {"TAP_X_TEXTT": "b", "Tap_X_Text": "c", "TAP_X_EMPTY": "", "PATH": "d", "TAP_X_TEXT": "e"}
    assert reader().environment(given) == ({"text": "e"}, ["TAP_X_TEXTT", "Tap_X_Text"])

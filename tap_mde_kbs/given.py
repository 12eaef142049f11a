"""Values as people give them: in config files, in the environment and in `.env`; made into what the settings say.

One reader for all: what a shell, a container, an editor or a copy leaves around a value is taken off, empty is not set,
and what can't be read is named, never quoted: it may be a secret under the wrong name. Must not know any setting.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv import dotenv_values

from tap_mde_kbs.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

AROUND = " \t\r\n\f\v\x85\u00a0\u200b\u200c\u200d\u2028\u2029\u2060\ufeff"
"""What a copy leaves around a value: blanks, line ends, characters without a width."""

BOOLEANS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}
"""The usual spellings of yes and no, in lower case."""

DOTENV = ".env"

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")


class Reader:
    """Makes what was given into what the settings' schema says.

    Args:
        schema: Of all settings, as JSON schema.
        exact: Strings that may begin and end with anything but a line end: passphrases, which people choose.
        spaced: Strings in which a line break or a tab is a blank: prose, or a filter of several lines.
        prefix: What the names of environment variables begin with.
        earlier: Earlier names of settings: their variables are read as well.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        *,
        exact: frozenset[str],
        spaced: frozenset[str],
        prefix: str,
        earlier: Collection[str] = (),
    ) -> None:
        self._properties: Mapping[str, Any] = schema["properties"]
        self._exact = exact
        self._spaced = spaced
        self._prefix = prefix
        self._earlier = earlier

    def environment(self, environ: Mapping[str, str] = os.environ) -> tuple[dict[str, str], list[str]]:
        """What environment variables give, and a `.env` in the working folder where they give nothing.

        Of the file, only variables of settings count, and nothing of it gets into the environment: a `.env` is often
        another program's, and a proxy or a certificate authority in it would decide where a secret goes.

        Returns:
            Settings by name, and the variables that begin as those of settings do, in whatever case, and are of none.

        Raises:
            FileError: There is a `.env`, and it can't be read.
        """
        names = {self._prefix + name.upper().replace("-", "_"): name for name in (*self._properties, *self._earlier)}
        read: dict[str, str] = {}
        others: dict[str, None] = {}
        for variables in (_dotenv(), environ):
            for variable, value in variables.items():
                if value is None or not _bare(value):
                    continue
                if variable in names:
                    read[names[variable]] = value
                elif variable.upper().startswith(self._prefix):
                    others[variable] = None
        return read, [*others]

    def read(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """The settings with their values; for the others, by name, what they must be: a clause."""
        values: dict[str, Any] = {}
        problems: dict[str, str] = {}
        for name, value in given.items():
            setting = self._properties.get(name)
            if setting is None:
                values[name] = value  # whoever knows the settings says so
                continue
            try:
                read = self._value(name, value, setting)
            except ValueError as error:
                problems[name] = str(error)
                continue
            if read is not None:
                values[name] = read
        return values, problems

    def _value(self, name: str, value: Any, setting: Mapping[str, Any]) -> Any:
        """A value of a setting; None where it is not set.

        Raises:
            ValueError: It is none; the text is what it must be.
        """
        kinds = setting.get("type", ())
        kind = next((each for each in ([kinds] if isinstance(kinds, str) else kinds) if each != "null"), "string")
        if isinstance(value, str):
            if kind == "string":
                return self._text(name, value, setting)
            text = _bare(value)
            return READERS[kind](text) if text else None
        if isinstance(value, float) and not math.isfinite(value):
            msg = f"of type {kind}, and finite"
            raise ValueError(msg)
        if kind == "boolean" and type(value) is int and value in {0, 1}:
            return bool(value)
        if kind == "integer" and isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    def _text(self, name: str, value: str, setting: Mapping[str, Any]) -> str | None:
        text = value.strip("\r\n\ufeff") if name in self._exact else _bare(value)
        if name in self._spaced:
            text = " ".join(text.split())
        if _CONTROL.search(text):
            msg = "a text without line breaks, control characters and bytes that are no UTF-8"
            raise ValueError(msg)
        choices = {str(each).casefold(): str(each) for each in setting.get("enum", ()) if each is not None}
        return choices.get(text.casefold().replace("-", "_"), text) or None


def decoded(content: bytes) -> str:
    """The text of a file, in UTF-8 with or without a mark, UTF-16 or UTF-32: editors and shells of Windows write these.

    Raises:
        UnicodeDecodeError: It is in none of them.
    """
    return content.decode(json.detect_encoding(content))


def _dotenv() -> Mapping[str, str | None]:
    """The variables of a `.env` in the working folder; a folder of that name is a virtual environment."""
    path = Path(DOTENV)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return {}
    except OSError as error:
        msg = f"The file {DOTENV} in the working folder can't be read: {error.strerror}."
        raise FileError(msg, "Correct its permissions, or move it away.") from None
    try:
        text = decoded(content)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        msg = f"The file {DOTENV} in the working folder is no text in UTF-8 or UTF-16."
        raise FileError(msg, "Save it as UTF-8, or move it away.") from None
    return dotenv_values(stream=io.StringIO(text), interpolate=False)


def _bare(text: str) -> str:
    """A value without what is around it, and without one pair of quotes, which docker's --env-file leaves."""
    text = text.strip(AROUND)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]:
        return text[1:-1].strip(AROUND)
    return text


def _boolean(text: str) -> bool:
    try:
        return BOOLEANS[text.casefold()]
    except KeyError:
        msg = "of type boolean: true or false (also yes, no, on, off, 1, 0)"
        raise ValueError(msg) from None


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        msg = "of type integer"
        raise ValueError(msg)
    return int(text[:40])


def _number(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        msg = "of type number, and finite"
        raise ValueError(msg)
    return value


def _array(text: str) -> list[Any]:
    """A list in JSON, or with commas."""
    if not text.startswith("["):
        return [bare for each in text.split(",") if (bare := _bare(each))]
    return list(_json(text, list, "an array in JSON, or a list with commas"))


def _object(text: str) -> dict[str, Any]:
    return dict(_json(text, dict, "an object in JSON"))


def _json(text: str, kind: type, rule: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, kind):
        return value
    raise ValueError(rule)


READERS: Mapping[str, Callable[[str], Any]] = {
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "array": _array,
    "object": _object,
}
"""How a text becomes a value, by the type of the setting."""

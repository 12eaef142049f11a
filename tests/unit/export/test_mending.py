"""Broken text in a file of JSON is mended, what is whole is left as it is, and what is no JSON stays none."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_mde_kbs.export import mending
from tap_mde_kbs.export.mending import mend
from tap_mde_kbs.schema import text

WHOLE = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
ANY_TEXT = st.text(alphabet=st.one_of(st.characters(), st.sampled_from('\ud800\udbff\udc00\udfff\\"/u}\ufffd')))


def mended(content: bytes, piece: int = mending.PIECE_BYTES) -> tuple[bytes, int]:
    """What becomes of a content that is read in pieces of that many bytes, and in how many places it was mended."""
    with tempfile.TemporaryDirectory() as folder, patch.object(mending, "PIECE_BYTES", piece):
        source, target = Path(folder, "source.json"), Path(folder, "target.json.gz")
        source.write_bytes(content)
        count = mend(source, target)
        return gzip.decompress(target.read_bytes()), count


@given(found=st.lists(WHOLE), piece=st.integers(1, 50), escaped=st.booleans())
def test_what_is_whole_is_left_as_it_is(found: list[Any], piece: int, *, escaped: bool) -> None:
    """However it is written, and wherever a piece of it ends."""
    content = "\n".join(json.dumps(one, ensure_ascii=escaped) for one in found).encode()
    assert mended(content, piece) == (content, 0)


@given(found=ANY_TEXT, piece=st.integers(1, 50))
def test_half_a_character_becomes_the_replacement_as_by_the_machine(found: str, piece: int) -> None:
    content = json.dumps({"DiskPaths": found.replace("\0", "")}).encode()
    became, count = mended(content, piece)
    # Two halves side by side are a whole one in JSON.
    right = text(json.loads(content)["DiskPaths"])
    assert json.loads(became) == {"DiskPaths": right}
    assert (count > 0) == (right != json.loads(content)["DiskPaths"])


@given(found=st.binary(), piece=st.integers(1, 50))
def test_bytes_that_are_no_text_become_text(found: bytes, piece: int) -> None:
    """In a string; outside of one they are as wrong as before."""
    inside = found.replace(b'"', b"").replace(b"\n", b"").replace(b"\r", b"")
    became, _ = mended(b'{"DiskPaths": "' + inside + b'."}', piece)
    assert json.loads(became.decode())["DiskPaths"].endswith(".")


@pytest.mark.parametrize(
    ("content", "became"),
    [
        (rb'{"a": "\\ud800"}', rb'{"a": "\\ud800"}'),
        (rb'{"a": "\ud83d\ude00"}', rb'{"a": "\ud83d\ude00"}'),
        (rb'{"a": "\ude00\ud83d"}', '{"a": "\ufffd\ufffd"}'.encode()),
        (rb'{"a": "C:\Users\1"}', rb'{"a": "C:\\Users\\1"}'),
        (b'{"a": "x\ty\x00"}', '{"a": "x y\ufffd"}'.encode()),
        (b'\xef\xbb\xbf{"a": 1}\n\xef\xbb\xbf{"a": 2}', b'{"a": 1}\n{"a": 2}'),
        (b'{"a": "\xef\xbb\xbf"}', b'{"a": "\xef\xbb\xbf"}'),
        (b'{"a": "half a reco', b'{"a": "half a reco'),
        (b"<html></html>", b"<html></html>"),
        (b"", b""),
    ],
)
def test_only_what_is_broken_is_changed(content: bytes, became: bytes) -> None:
    assert mended(content) == (became, (content != became) * max(1, mended(content)[1]))


def test_what_has_no_end_takes_no_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "LARGEST_OBJECT_BYTES", 100)
    content = b"\xff" + b"x" * 10_000
    became, count = mended(content, 10)
    assert (became, count) == (b"\xef\xbf\xbd" + b"x" * 10_000, 1)

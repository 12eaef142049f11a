"""README and docs/: what code knows of them, and the blocks of code in them.

`python -m tests.support.readme` writes the parts that are made from the code; a test compares them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tap_mde_kbs.errors import API_REMEDIES, SIGN_IN_REMEDIES
from tap_mde_kbs.settings import CLOUDS
from tests.support.singer import TAP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
SIMULATOR = TAP.parent / "mde-simulator"

STREAMS: Mapping[str, str] = {
    "machines": "Every machine that the tenant lists and the application may see.",
    "missing_kbs": "The security updates that each machine lacks.",
    "missing_kbs_checks": (
        "What became of each machine in each sweep, written right after its KBs. Nothing ever deletes a row."
    ),
    "sweeps": "The tap's own judgement: a row for every sweep, written when it begins and again when a run ends.",
    "kb_cves": "Which CVEs an update closes, and how bad they are: only where `missing_kbs_source` is an export.",
    "msrc_kbs": "Updates, a row for each MSRC document that names one: only with the [feed](advisories.md) `msrc`.",
    "msrc_kb_cves": "Which CVEs an update closes, by MSRC: only with the feed `msrc`.",
    "msrc_cves": "What MSRC says of the CVEs that an update closes: only with the feed `msrc`.",
    "kev": "CISA's catalogue of known exploited vulnerabilities: only with the feed `kev`.",
    "epss": "How likely CVEs are to be exploited, by FIRST: only with the feed `epss`.",
}
"""What each stream is, in the order in which people meet them."""

_BLOCK = re.compile(r"(?:^<!-- ([^>\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code on a page: what the comment above it says, its language, its text."""

    page: Path
    comment: str
    language: str
    text: str


def pages() -> list[Path]:
    """README, and what it leads to in docs/."""
    return [README, *sorted(DOCS.glob("*.md"))]


def blocks() -> list[Block]:
    """Every block of code."""
    return [Block(page, *found.groups("")) for page in pages() for found in _BLOCK.finditer(page.read_text())]


def block(name: str) -> str:
    """A block of code, by the name in the comment above it."""
    [found] = [each.text for each in blocks() if each.comment == name]
    return found


def sql(name: str) -> str:
    """One of the queries."""
    return block(f"sql: {name}")


@cache
def about() -> dict[str, Any]:
    """What `tap-mde-kbs --about --format json` prints."""
    return dict(json.loads(_said(TAP, "--about", "--format", "json")))


@cache
def catalog() -> dict[str, dict[str, Any]]:
    """Every stream that the tap has with any setting, as its catalog lists it, by name."""
    environ = {**os.environ, "TAP_MDE_KBS_MISSING_KBS_SOURCE": "export", "TAP_MDE_KBS_ADVISORY_FEEDS": "msrc,kev,epss"}
    listed = json.loads(_said(TAP, "--config=ENV", "--discover", environ=environ))["streams"]
    return {stream["tap_stream_id"]: stream for stream in listed}


def kind(schema: Mapping[str, Any]) -> str:
    """A property's type in a word or two."""
    words = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    [word] = [each for each in words if each != "null"]
    return f"array of {kind(schema['items'])}s" if word == "array" else str(schema.get("format", word))


def streams() -> Iterator[str]:
    """A table of columns for each stream."""
    listed = catalog()
    for name in sorted(listed, key=[*STREAMS].index):
        keys = ", ".join(f"`{key}`" for key in listed[name]["key_properties"])
        yield from ("", f"## `{name}`", "", f"{STREAMS[name]} Key: {keys}.", "", "| column | type | |", "|---|---|---|")
        for column, prop in listed[name]["schema"]["properties"].items():
            yield f"| `{column}` | {kind(prop)} | {_cell(prop.get('description', ''))} |"
    yield ""


def settings() -> Iterator[str]:
    """A row for each setting, by what `--about` says."""
    yield from ("", "| setting | type | default | |", "|---|---|---|---|")
    document = about()["settings"]
    for name, prop in document["properties"].items():
        required = " **Required.**" if name in document.get("required", ()) else ""
        secret = " Secret." if prop.get("secret") else ""
        default = f"`{json.dumps(prop['default'])}`" if "default" in prop and name != "user_agent" else ""
        default = "`tap-mde-kbs/<version>`" if name == "user_agent" else default
        text = _cell(prop.get("description") or prop.get("title") or "")
        yield f"| `{name}` | {kind(prop)} | {default} | {text}{required}{secret} |"
    yield ""


def clouds() -> Iterator[str]:
    """A row for each cloud."""
    yield from ("", "| `cloud` | login authority | API host | token scope |", "|---|---|---|---|")
    for name, found in CLOUDS.items():
        yield f"| `{name}` | `{found.authority_url}` | `{found.api_url}` | `{found.token_scope}` |"
    yield ""


def remedies() -> Iterator[str]:
    """What errors mean and what to do, as the tap itself says it."""
    yield from ("", "## What the API or the network says", "", "| what is said | what to do |", "|---|---|")
    for remedy in API_REMEDIES.values():
        yield f"| {_cell(remedy.meaning)} | {_cell(remedy.advice.format(permission='(the answer names it)'))} |"
    yield from ("", "## What Entra ID says", "", "| error | meaning | what to do |", "|---|---|---|")
    for code, remedy in SIGN_IN_REMEDIES.items():
        yield f"| AADSTS{code} | {_cell(remedy.meaning)} | {_cell(remedy.advice)} |"
    yield ""


def options() -> Iterator[str]:
    """A row for each option of the command, by what `--help` says."""
    yield from ("", "| option | |", "|---|---|")
    said = _said(TAP, "--help", environ={**os.environ, "COLUMNS": "200"})
    for name, value, text in re.findall(r"^  (--[\w-]+)(?: (\S+))?  +(.*(?:\n {10,}.*)*)", said, re.MULTILINE):
        ways = [f"`{name} {each}`".replace(" `", "`") for each in value.strip("[]").split("|")]
        yield f"| {' or '.join(ways)} | {_cell(text)} |"
    yield ""


def faults() -> Iterator[str]:
    """A row for each kind of fault that the simulator knows, by what its `--help` says."""
    yield from ("", "| kind | what it does |", "|---|---|")
    _, _, said = _said(SIMULATOR, "--help").partition("\nfaults (")
    for name, text in re.findall(r"^  (\w+) +(.*(?:\n {10,}.*)*)", said, re.MULTILINE):
        yield f"| `{name}` | {_cell(text)} |"
    yield ""


GENERATED: Mapping[str, Callable[[], Iterable[str]]] = {
    "streams": streams,
    "settings": settings,
    "clouds": clouds,
    "remedies": remedies,
    "options": options,
    "faults": faults,
}
"""The parts made from the code, by their names: a page has one between `<!-- name -->` and `<!-- /name -->`."""


def rendered(text: str) -> str:
    """A page with its generated parts as the code has them now."""

    def fresh(found: re.Match[str]) -> str:
        lines = "\n".join(GENERATED[found[1]]())
        return f"<!-- {found[1]} -->\n{lines}\n<!-- /{found[1]} -->"

    return re.sub(r"^<!-- (\w+) -->\n.*?^<!-- /\1 -->", fresh, text, flags=re.DOTALL | re.MULTILINE)


def _said(command: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
    done = subprocess.run([str(command), *arguments], capture_output=True, text=True, check=True, env=environ)
    return done.stdout


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    for page in pages():
        page.write_text(rendered(page.read_text()))

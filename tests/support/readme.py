"""The parts of the README that code knows: `python -m tests.support.readme` writes them, a test compares them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tap_mde_kbs import schema
from tap_mde_kbs.errors import API_REMEDIES, SIGN_IN_REMEDIES
from tap_mde_kbs.settings import CLOUDS
from tests.support.singer import TAP

if TYPE_CHECKING:
    from collections.abc import Iterator

README = Path(__file__).parents[2] / "README.md"
STREAMS = {
    "machines": ("`id`", "Every machine that the tenant lists and the application may see.", schema.MACHINES.schema),
    "missing_kbs": ("`machine_id`, `id`", "The security updates that each machine lacks.", schema.MISSING_KBS.schema),
    "missing_kbs_checks": (
        "`machine_id`, `sweep`",
        "What became of each machine in each sweep, written right after its KBs; nothing ever deletes a row.",
        schema.MISSING_KBS_CHECKS.schema,
    ),
    "kb_cves": (
        "`kb_id`, `cve_id`",
        "Which CVEs an update closes, and how bad they are: only where missing_kbs_source is an export.",
        schema.KB_CVES.schema,
    ),
}


def kind(schema: dict[str, Any]) -> str:
    """A property's type in a word or two."""
    word = next(name for name in schema["type"] if name != "null")
    return f"array of {kind(schema['items'])}s" if word == "array" else str(schema.get("format", word))


def streams() -> Iterator[str]:
    """A table of columns for each stream."""
    for name, (keys, what, columns) in STREAMS.items():
        yield from ("", f"### `{name}`", "", f"{what} Key: {keys}.", "", "| column | type | |", "|---|---|---|")
        for column, prop in columns["properties"].items():
            yield f"| `{column}` | {kind(prop)} | {prop.get('description', '')} |"
    yield ""


def about() -> dict[str, Any]:
    """What `tap-mde-kbs --about --format json` prints."""
    done = subprocess.run([str(TAP), "--about", "--format", "json"], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def settings() -> Iterator[str]:
    """A row for each setting, by what `--about` says."""
    yield from ("", "| setting | type | default | |", "|---|---|---|---|")
    document = about()["settings"]
    for name, prop in document["properties"].items():
        required = " **Required.**" if name in document.get("required", ()) else ""
        secret = " Secret." if prop.get("secret") else ""
        default = f"`{json.dumps(prop['default'])}`" if "default" in prop and name != "user_agent" else ""
        default = "`tap-mde-kbs/<version>`" if name == "user_agent" else default
        text = " ".join((prop.get("description") or prop.get("title") or "").split()).replace("|", "\\|")
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
    yield from ("", "| what the API or the network says | what to do |", "|---|---|")
    for remedy in API_REMEDIES.values():
        yield f"| {remedy.meaning} | {remedy.advice.format(permission='that it names')} |"
    yield from ("", "| what Entra ID says | meaning | what to do |", "|---|---|---|")
    for code, remedy in SIGN_IN_REMEDIES.items():
        yield f"| AADSTS{code} | {remedy.meaning} | {remedy.advice} |"
    yield ""


def block(name: str) -> str:
    """A block of code in the README, by the name in the comment before it."""
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", README.read_text(), re.DOTALL)
    assert found, name
    return found[1]


def sql(name: str) -> str:
    """One of its queries."""
    return block(f"sql: {name}")


def rendered(text: str) -> str:
    """The README with its generated parts as the code has them now."""
    for name, lines in (
        ("streams", streams()),
        ("settings", settings()),
        ("clouds", clouds()),
        ("remedies", remedies()),
    ):
        block = "\n".join(lines)
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text = re.sub(pattern, lambda found, block=block: f"{found[1]}{block}{found[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    README.write_text(rendered(README.read_text()))

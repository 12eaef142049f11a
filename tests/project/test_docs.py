"""README and docs/ say what the code does, lead somewhere, and show no block of code that nobody runs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support import readme
from tests.support.readme import ROOT
from tests.support.singer import TAP

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

BESIDES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "transform/README.md", ".github/pull_request_template.md")
"""Pages that neither README nor docs/ is, but whose links are to lead somewhere too."""

ALL = [*readme.pages(), *(ROOT / name for name in BESIDES)]
NAMES = [str(page.relative_to(ROOT)) for page in ALL]
NOT_RUN = "not run: "
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
OUTPUT = "text"
RUNNABLE = {"bash", "sql", "yaml", "ini"}


@cache
def names_of_tests() -> frozenset[str]:
    """The name of every test function."""
    sources = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return frozenset(name for source in sources for name in re.findall(r"^ *def (test_\w+)\(", source, re.MULTILINE))


@cache
def text_of_tests() -> str:
    """The text of every test and what they share."""
    return "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Where links into a page may lead, as code hosts and MkDocs name its headings."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return frozenset(re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles)


@cache
def hooks() -> ModuleType:
    """docs/hooks.py, as MkDocs loads it."""
    spec = importlib.util.spec_from_file_location("docs_hooks", readme.DOCS / "hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def links(text: str) -> list[str]:
    """What a page links to, other hosts left out."""
    found: list[str] = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text))
    return [link for link in found if not link.startswith("https://")]


@pytest.mark.parametrize("page", readme.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_made_from_the_code_is_current(page: Path) -> None:
    """After a change of the code: `python -m tests.support.readme`."""
    text = page.read_text()
    assert readme.rendered(text) == text


def test_every_generated_part_is_on_one_page() -> None:
    whole = "".join(page.read_text() for page in readme.pages())
    for name in readme.GENERATED:
        assert len(re.findall(rf"^<!-- {name} -->\n.*?^<!-- /{name} -->$", whole, re.DOTALL | re.MULTILINE)) == 1, name


def test_every_stream_has_a_sentence_and_every_column_a_description() -> None:
    listed = readme.catalog()
    assert set(listed) == set(readme.STREAMS)
    for stream in listed.values():
        assert all(prop["description"] for prop in stream["schema"]["properties"].values())


def test_types_are_words() -> None:
    """A type may be a text, or a list with null."""
    assert readme.kind({"type": "integer"}) == "integer"
    assert readme.kind({"type": ["null", "string"], "format": "date-time"}) == "date-time"
    assert readme.kind({"type": ["array", "null"], "items": {"type": "object"}}) == "array of objects"


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    page = ROOT / name
    for link in links(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", NAMES)
def test_headings_have_the_same_anchors_in_the_site(name: str) -> None:
    """MkDocs makes one hyphen of several, a code host does not; nobody links to the second of two, or to a release."""
    for title in re.findall(r"^#+ (?!\[\d)(.*)$", FENCED.sub("", (ROOT / name).read_text()), re.MULTILINE):
        assert "--" not in re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-"), title


def test_every_page_is_led_to() -> None:
    """From the README, and in the site's navigation."""
    led = {link.partition("#")[0] for link in links(readme.README.read_text())}
    pages = {str(page.relative_to(ROOT)) for page in readme.DOCS.glob("*.md")}
    assert pages <= led
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = set(re.findall(r"[\w-]+\.md", str(site["nav"])))
    assert named == {page.removeprefix("docs/") for page in pages} | set(hooks().PAGES.values())


def test_in_the_site_every_link_leads_to_a_page_of_it() -> None:
    """Also of the pages that come from elsewhere; a link to any other file is text there."""
    site = {f"docs/{page.name}": page.name for page in readme.DOCS.iterdir()} | hooks().PAGES
    for source, name in site.items():
        if name.endswith(".md"):
            text = hooks().relinked((ROOT / source).read_text(), name)
            led = [link.partition("#")[0] for link in links(text) if not link.startswith("#")]
            assert set(led) <= set(site.values()), name


def test_in_the_site_files_are_shown_where_the_repository_is() -> None:
    relinked = hooks().relinked
    text = "[meltano.yml](../meltano.yml), [a](../README.md#b), [c](setup.md#d) ![e](report.png)"
    assert relinked(text, "meltano.md") == "meltano.yml, [a](overview.md#b), [c](setup.md#d) ![e](report.png)"
    shown = relinked(text, "meltano.md", "https://host.example/tap/")
    assert shown.startswith("[meltano.yml](https://host.example/tap/blob/HEAD/meltano.yml), [a](overview.md#b)")
    assert relinked("```\n[a](b)\n```", "meltano.md") == "```\n[a](b)\n```"


def test_every_block_of_code_is_run_or_says_why_not() -> None:
    """By a test that knows its name."""
    two_commands, *rest = readme.blocks()
    assert two_commands.text.startswith("make demo")
    for block in rest:
        assert block.language in RUNNABLE | {OUTPUT}, block
        if block.language == OUTPUT:
            continue
        if not block.comment.startswith(NOT_RUN):
            name = block.comment.rpartition(": ")[2] if block.language in {"bash", "sql"} else block.comment
            assert name, block
            assert re.search(rf'"(?:{block.language}: )?{re.escape(name)}"', text_of_tests()), block
        else:
            assert len(block.comment) > len(NOT_RUN)


@pytest.mark.parametrize(
    "block", [each for each in readme.blocks() if each.language == "bash"], ids=lambda block: block.page.stem
)
def test_every_block_of_bash_is_bash(block: readme.Block) -> None:
    """Those as well that need a tenant to run."""
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)  # noqa: S607 - whichever bash there is
    assert done.stderr == ""


def test_variables_shown_are_settings() -> None:
    """What a client secret needs, all of it."""
    shown = re.findall(r"^TAP_MDE_KBS_(\w+)=", readme.block("env: client secret"), re.MULTILINE)
    assert [name.lower() for name in shown] == ["tenant_id", "client_id", "client_secret"]


@pytest.mark.parametrize("command", ["tap-mde-kbs", "mde-simulator"])
def test_options_that_are_named_exist(command: str) -> None:
    done = subprocess.run([str(TAP.parent / command), "--help"], capture_output=True, text=True, check=True)
    known = set(re.findall(r"--[a-z-]+", done.stdout))
    for page in ALL:
        text = page.read_text()
        lines = [line for line in text.splitlines() if "az ad" not in line]
        calls = [call for line in lines for call in re.findall(rf"{command} (--[^|`&#]*)", line)]
        named = {option for call in calls for option in re.findall(r"--[a-z-]+", call)}
        if page.name == "simulator.md" and command == "mde-simulator":
            named |= set(re.findall(r"`(--[a-z-]+)", text))
        assert named <= known, page


def test_settings_that_are_named_exist() -> None:
    """Every variable of the tap, on any page."""
    known = {name.upper() for name in readme.about()["settings"]["properties"]} | {"LOGLEVEL"}
    for page in ALL:
        assert set(re.findall(r"\bTAP_MDE_KBS_([A-Z]\w*)", page.read_text())) <= known, page


@pytest.mark.parametrize("page", ["behaviour.md", "threat-model.md"])
def test_every_promise_is_held_by_tests_that_exist(page: str) -> None:
    text = (readme.DOCS / page).read_text()
    promises: list[Any] = re.findall(r"^- \*\*(.*?)(?=^- |^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(promises) > 20
    for promise in promises:
        assert re.search(r"^    - held by `test_", promise, re.MULTILINE), promise
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named - names_of_tests() == set()


def said_in_a_row(text: str) -> set[tuple[str, ...]]:
    """Every eight words of a page that follow each other, pictures and blocks of code left out."""
    words = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", FENCED.sub("", text)).split()
    return {tuple(words[start : start + 8]) for start in range(len(words) - 7)}


def test_the_sites_front_has_a_route_for_everybody_and_says_little_itself() -> None:
    """A stranger finds a picture and their own route, of links; what the README says it does not say again."""
    text = (readme.DOCS / "index.md").read_text()
    assert hooks().PAGES["README.md"] != "index.md"
    routes = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(routes) == ["I want rows tonight", "I have only SQL", "I operate it at 3 a.m.", "I want to change it"]
    for name, route in routes.items():
        assert len(links(route)) >= 4, name
        assert len(route.split()) <= 120, name
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures == ["report.png"]
    assert said_in_a_row(text) & said_in_a_row(readme.README.read_text()) == set()

# ruff: noqa: INP001 - MkDocs loads this file by its path, so docs/ need be no package
"""Make one site of docs/ and of the pages that a code host wants elsewhere. For MkDocs alone; knows no tap.

A link to a file that is no page becomes plain text, since the repository's address is not known here; with a `repo_url`
in mkdocs.yml it leads there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "overview.md",
    "transform/README.md": "transform.md",
    "examples/README.md": "examples.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""Pages outside docs/, and where the site has them."""

SOURCES = {page: source for source, page in PAGES.items()}

_LINK = re.compile(r"\[([^\]]*)\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - tests read this file without MkDocs

    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Lead every link to where the site has its target."""
    return relinked(markdown, page.file.src_uri, config.repo_url or "")


def relinked(markdown: str, page: str, repo_url: str = "") -> str:
    """The text of a page of the site, with links as they are there.

    Args:
        markdown: As it stands in the repository.
        page: The page's name in the site.
        repo_url: Where other files are shown; empty: nowhere.
    """
    folder = posixpath.dirname(SOURCES.get(page, f"docs/{page}"))

    def lead(found: re.Match[str]) -> str:
        text, link, anchor = found[1], found[2], found[3] or ""
        target = posixpath.normpath(posixpath.join(folder, link))
        if target in PAGES:
            return f"[{text}]({PAGES[target]}{anchor})"
        if target.startswith("docs/"):
            return f"[{text}]({target.removeprefix('docs/')}{anchor})"
        return f"[{text}]({repo_url.rstrip('/')}/blob/HEAD/{target}{anchor})" if repo_url else text

    parts = _CODE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(lead, part) for part in parts)

"""What is released: it builds wherever its source is, holds what it should, and runs installed alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.environments import ROOT, git, uv
from tests.support.every_python import CLASSIFIER, UNTESTED, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

needs_git = pytest.mark.skipif(not git("rev-parse", "HEAD"), reason="This is no checkout of git.")
COMMIT = r"\+g[0-9a-f]{7,}"


def run(*command: str, folder: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with variables over this environment."""
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )


def git_in(folder: Path, *words: str) -> None:
    """Run git as somebody."""
    done = run("git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.com", *words, folder=folder)
    assert done.returncode == 0, done.stderr


def build(source: Path, place: Path, *options: str) -> list[Path]:
    """What uv builds of a source, the sdist first."""
    done = run(uv(), "build", "--quiet", "--out-dir", str(place), *options, str(source))
    assert done.returncode == 0, done.stderr
    return sorted([*place.glob("*.tar.gz"), *place.glob("*.whl")], key=lambda path: path.suffix)


def version_of(archive: Path) -> str:
    """The version in an archive's name."""
    return re.sub(r"^tap_mde_kbs-|(-py3-none-any\.whl|\.tar\.gz)$", "", archive.name)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The sdist of the checkout, and the wheel that is built of the sdist."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def clone(folder: Path, *options: str) -> Path:
    """A clone of the checkout."""
    git_in(folder, "clone", "--quiet", "--no-local", "--no-tags", *options, ROOT.as_uri(), "clone")
    return folder / "clone"


def archive(folder: Path) -> Path:
    """The tree as a code host packs it: of a tagged commit, without .git."""
    cloned = clone(folder, "--depth=1")
    git_in(cloned, "tag", "v1.2.3")
    git_in(cloned, "archive", "--output=../source.tar", "HEAD")
    with tarfile.open(folder / "source.tar") as packed:
        packed.extractall(folder / "source", filter="data")
    return folder / "source"


def copy_without_anything(folder: Path) -> Path:
    """A tree that nothing tells the version of."""
    source = archive(folder)
    (source / ".git_archival.txt").unlink()
    return source


def tagged(folder: Path) -> Path:
    """What a release is built of."""
    cloned = clone(folder)
    git_in(cloned, "tag", "v1.2.3")
    return cloned


def after_a_release(folder: Path) -> Path:
    """One commit later."""
    cloned = tagged(folder)
    git_in(cloned, "commit", "--quiet", "--allow-empty", "--message=more")
    return cloned


def sdist(folder: Path) -> Path:
    """An sdist that was unpacked."""
    packed, _ = build(tagged(folder), folder / "dist")
    with tarfile.open(packed) as opened:
        opened.extractall(folder, filter="data")
    return folder / packed.name.removesuffix(".tar.gz")


@needs_git
@pytest.mark.parametrize(
    ("source", "version"),
    [
        (clone, rf"0\.0\.1\.dev\d+{COMMIT}"),
        (lambda folder: clone(folder, "--depth=1"), rf"0\.0\.1\.dev1{COMMIT}"),
        (archive, r"1\.2\.3"),
        (copy_without_anything, r"0\.0\.0"),
        (tagged, r"1\.2\.3"),
        (after_a_release, rf"1\.2\.4\.dev1{COMMIT}"),
        (sdist, r"1\.2\.3"),
    ],
    ids=["no tags", "shallow", "archive", "copy", "tag", "after a tag", "sdist"],
)
def test_it_builds_wherever_its_source_is(source: Callable[[Path], Path], version: str, tmp_path: Path) -> None:
    """And its version says what is known of it."""
    [wheel] = build(source(tmp_path), tmp_path / "out", "--wheel")
    assert re.fullmatch(version, version_of(wheel))


def test_sdist_and_wheel_hold_what_they_should(built: list[Path]) -> None:
    done = run(sys.executable, ".ci/dist.py", *map(str, built))
    assert (done.stdout, done.returncode) == ("2 archives, all is well\n", 0)


def test_a_release_is_of_its_tag(built: list[Path]) -> None:
    done = run(sys.executable, ".ci/dist.py", "--version", "9.9.9", *map(str, built))
    assert done.returncode == 1
    assert done.stdout.endswith("should be 9.9.9\n")


def rewritten(packed: Path, folder: Path, change: Callable[[str, bytes], Iterator[tuple[str, bytes]]]) -> Path:
    """A wheel with other files in it."""
    changed = folder / packed.name
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            for path, content in change(name, old.read(name)):
                new.writestr(path, content)
    return changed


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tests/test_a.py", b"", "tests should not be in it"),
        ("tap_mde_kbs/test_a.py", b"", "tap_mde_kbs/test_a.py should not be in it"),
        ("tap_mde_kbs/.env", b"", "tap_mde_kbs/.env should not be in it"),
        ("tap_mde_kbs/a.pem", b"", "tap_mde_kbs/a.pem should not be in it"),
        ("tap_mde_kbs/a.txt", b"-----BEGIN " + b"PRIVATE KEY-----\n" + b"A" * 64, "holds a private key"),
        ("tap_mde_kbs/a.txt", b"see /" + b"home/somebody", "the path of a home folder"),
        ("tap_mde_kbs/py.typed", None, "tap_mde_kbs/py.typed is lacking"),
        ("LICENSE", None, "the licence is lacking"),
        ("METADATA", b"Name: other\n\n# other", "Name is 'other'"),
        ("entry_points.txt", b"", "the command `tap-mde-kbs = tap_mde_kbs.cli:main` is lacking"),
    ],
)
def test_what_should_not_be_released_is_named(
    built: list[Path], tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    """A file more, another one, or one less."""

    def change(path: str, kept: bytes) -> Iterator[tuple[str, bytes]]:
        if not path.endswith(name):
            yield path, kept
        elif content is not None:
            yield path, content
        if path.endswith("__main__.py") and path.startswith("tap_mde_kbs") and "/" in name and content is not None:
            yield name, content

    changed = rewritten(built[1], tmp_path, change)
    done = run(sys.executable, ".ci/dist.py", str(changed))
    assert done.returncode == 1
    assert said in done.stdout


def test_the_bill_of_materials_has_every_dependency_and_the_version() -> None:
    """Of the tap and of its extras, and none of the tests'."""
    bill = json.loads(run(sys.executable, ".ci/sbom.py", "1.2.3", UV=uv()).stdout)
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/tap-mde-kbs@1.2.3"
    names = {component["name"] for component in bill["components"]}
    assert {"singer-sdk", "msal", "requests", "duckdb", "faker"} <= names
    assert not {"pytest", "ruff", "dbt-core"} & names


@needs_git
def test_the_release_workflow_builds_a_tag_with_its_notes(tmp_path: Path) -> None:
    """Its own commands, on a tag whose section of the changelog has a day; what later jobs take is there."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    [commands] = [step["run"] for step in workflow["jobs"]["build"]["steps"] if "run" in step]
    cloned = clone(tmp_path)
    changelog = cloned / "CHANGELOG.md"
    entry = "## [9.9.9] - 2026-12-31\n\n- All\n  of it.\n\n## [0.1.0]"
    changelog.write_text(changelog.read_text().replace("## [0.1.0]", entry, 1))
    git_in(cloned, "commit", "--quiet", "--all", "--message=9.9.9")
    git_in(cloned, "tag", "v9.9.9")
    path = f"{Path(uv()).parent}{os.pathsep}{os.environ['PATH']}"
    done = run("bash", "-euo", "pipefail", "-c", commands, folder=cloned, GITHUB_REF_NAME="v9.9.9", PATH=path)
    assert done.returncode == 0, done.stderr
    made = {each.name for folder in ("dist", "out") for each in (cloned / folder).iterdir()} - {".gitignore"}
    assert made == {
        "notes.md",
        "tap-mde-kbs.cdx.json",
        "tap_mde_kbs-9.9.9-py3-none-any.whl",
        "tap_mde_kbs-9.9.9.tar.gz",
    }
    assert (cloned / "out" / "notes.md").read_text() == "- All of it.\n"
    later = json.dumps({name: job for name, job in workflow["jobs"].items() if name != "build"})
    assert {"out/notes.md", "out/tap-mde-kbs.cdx.json"} <= set(re.findall(r"out/[\w.-]+", later))


def test_every_python_that_is_claimed_is_tried_by_the_workflows() -> None:
    """The wheel on all of them, the tests where they can run; what may fail is claimed by nobody."""
    project = metadata("tap-mde-kbs")
    classifiers = project.get_all("Classifier") or []
    claimed = [each.removeprefix(CLASSIFIER) for each in classifiers if each.startswith(CLASSIFIER)]
    assert project["Requires-Python"] == f">={claimed[0]}"
    jobs = {
        name: yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())["jobs"]
        for name in ("test", "release")
    }
    pythons = {
        (workflow, name): job["strategy"]["matrix"]["python"]
        for workflow, of in jobs.items()
        for name, job in of.items()
        if "python" in job.get("strategy", {}).get("matrix", {})
    }
    assert pythons.pop(("test", "test")) == [each for each in claimed if each not in UNTESTED]
    assert pythons.pop(("test", "wheel")) == [*claimed, f"{claimed[-1]}t"]
    assert list(pythons.values()) == [claimed]
    may_fail = {name: job["continue-on-error"] for name, job in jobs["test"].items() if "continue-on-error" in job}
    assert may_fail == {"wheel": "${{ endsWith(matrix.python, 't') }}", "next-sdk": True}


def test_only_the_jobs_that_need_it_may_write() -> None:
    """A token for PyPI goes to the job that publishes, and to the one that signs; none of them runs code of ours."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert workflow["permissions"] == {}
    may_write = {
        name: sorted(scope for scope, access in job.get("permissions", {}).items() if access == "write")
        for name, job in workflow["jobs"].items()
    }
    assert {name: scopes for name, scopes in may_write.items() if scopes} == {
        "attest": ["attestations", "id-token"],
        "publish": ["id-token"],
        "release": ["contents"],
    }
    for name in ("attest", "publish", "release"):
        assert "actions/checkout" not in json.dumps(workflow["jobs"][name])


CHANGES = """\
# Changelog

## [Unreleased]

## [0.2.0] - 2026-12-31

One paragraph
on two lines.

### Added

- A line
  that goes on.
- Another.

## [0.1.0] - not released yet

- The first.
"""


@pytest.fixture
def notes(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """The notes of a version, out of a changelog made for it."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "notes.py", tmp_path / ".ci")
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    return lambda version: run(sys.executable, str(tmp_path / ".ci" / "notes.py"), version)


@pytest.mark.parametrize("version", ["0.2.0", "v0.2.0"])
def test_a_releases_notes_are_its_section_of_the_changelog(
    notes: Callable[[str], subprocess.CompletedProcess[str]], version: str
) -> None:
    assert notes(version).stdout == ("One paragraph on two lines.\n\n### Added\n\n- A line that goes on.\n- Another.\n")


@pytest.mark.parametrize(
    ("version", "said"), [("0.1.0", "has no day"), ("0.3.0", "says nothing of 0.3.0"), ("Unreleased", "says nothing")]
)
def test_what_is_not_written_up_is_not_released(
    notes: Callable[[str], subprocess.CompletedProcess[str]], version: str, said: str
) -> None:
    done = notes(version)
    assert (done.stdout, done.returncode) == ("", 1)
    assert said in done.stderr


@pytest.mark.long
def test_the_wheel_runs_installed_alone_on_every_python_there_is(built: list[Path]) -> None:
    """Those that it says it supports, and this machine has."""
    named = re.findall(rf'"{CLASSIFIER}(3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    found = {version: path for version, path in installed(uv()).items() if version in named}
    assert found
    with tempfile.TemporaryDirectory() as folder:
        for version, path in found.items():
            done = run(".ci/wheel", str(built[1]), UV=uv(), UV_PYTHON=path, TMPDIR=folder)
            assert done.returncode == 0, f"{version}: {done.stderr}"
            assert f"tap-mde-kbs v{version_of(built[1])}, " in done.stdout, version
        assert not [*Path(folder).iterdir()]

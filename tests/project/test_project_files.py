"""Files beside the code say what the code says, and nothing of the machine they were written on."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from tap_mde_kbs.api.machines import LIST_PERMISSION, MISSING_KBS_PERMISSION
from tap_mde_kbs.export.calls import PERMISSION as EXPORT_PERMISSION
from tap_mde_kbs.settings import CLOUDS, CREDENTIAL_SETTINGS, DEFAULTS, FEEDS, RENAMED
from tests.support import readme, released
from tests.support.environments import ROOT, git, loader

if TYPE_CHECKING:
    from tests.conftest import Programs

PREFIX = "TAP_MDE_KBS_"
KINDS = {"number": "decimal"}
"""What Meltano calls the types of JSON schema."""
HOMES = re.compile(r"(?<![\w.])/(?:home|Users|root)/\w")


@pytest.fixture(scope="module")
def about() -> dict[str, Any]:
    """What `tap-mde-kbs --about` says."""
    command = Path(sysconfig.get_path("scripts")) / "tap-mde-kbs"
    shown = subprocess.run([command, "--about", "--format=json"], capture_output=True, text=True, check=True)
    said: dict[str, Any] = json.loads(shown.stdout)
    return said


@pytest.fixture(scope="module")
def settings(about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Its settings: their schemas by name."""
    properties: dict[str, dict[str, Any]] = about["settings"]["properties"]
    return properties


@pytest.fixture(scope="module")
def extractor() -> dict[str, Any]:
    """The tap as `meltano.yml` defines it."""
    project = yaml.safe_load((ROOT / "meltano.yml").read_text())
    (tap,) = project["plugins"]["extractors"]
    assert tap["name"] == "tap-mde-kbs"
    return dict(tap)


def tracked() -> list[Path]:
    """The files that git knows; where there is no git, as in a source archive, none."""
    return [ROOT / name for name in git("ls-files", "-z").split("\0") if name and (ROOT / name).is_file()]


def test_meltano_knows_every_setting_as_the_tap_does(
    settings: dict[str, dict[str, Any]], extractor: dict[str, Any]
) -> None:
    """Names, kinds, defaults, choices, and which are secret."""

    def by_the_tap(schema: dict[str, Any]) -> dict[str, Any]:
        (kind,) = {schema["type"]} if isinstance(schema["type"], str) else {*schema["type"]} - {"null"}
        default = schema.get("default")
        return {
            "kind": "options" if "enum" in schema else KINDS.get(kind, kind),
            # Meltano would go on to send an older version's.
            "default": None if isinstance(default, str) and version("tap-mde-kbs") in default else default,
            "options": schema.get("enum"),
            "secret": schema.get("secret", False),
        }

    def by_meltano(setting: dict[str, Any]) -> dict[str, Any]:
        options = setting.get("options")
        return {
            "kind": setting["kind"],
            "default": setting.get("value"),
            "options": options and [option["value"] for option in options],
            "secret": setting.get("sensitive", False),
        }

    assert {each["name"]: by_meltano(each) for each in extractor["settings"]} == {
        name: by_the_tap(schema) for name, schema in settings.items()
    }


def test_meltano_has_a_label_and_a_description_for_every_setting(extractor: dict[str, Any]) -> None:
    """`meltano config list` shows them."""
    assert all(each["label"] and each["description"] for each in extractor["settings"])


def test_meltano_asks_for_what_the_tap_requires(about: dict[str, Any], extractor: dict[str, Any]) -> None:
    """A group for each credential; Meltano says what is missing before it starts the tap."""
    needed = [sorted({*about["settings"]["required"], *needs}) for needs, _ in CREDENTIAL_SETTINGS.values()]
    groups = [sorted(set(group) - {"auth_method"}) for group in extractor["settings_group_validation"]]
    assert groups == needed


def test_meltano_knows_what_the_tap_is_capable_of(about: dict[str, Any], extractor: dict[str, Any]) -> None:
    """Without `state` and `catalog` there, Meltano would pass on neither."""
    assert sorted(extractor["capabilities"]) == sorted(about["capabilities"])


LOADERS = [each["name"] for each in yaml.safe_load((ROOT / "meltano.yml").read_text())["plugins"]["loaders"]]


@pytest.mark.parametrize("name", LOADERS)
def test_meltano_has_a_label_and_a_description_for_every_setting_of_a_target(name: str) -> None:
    """And a value of the kind that it says, or a variable's."""
    kinds = {"string": str, "integer": int, "decimal": float, "boolean": bool}
    for setting in loader(name)["settings"]:
        assert setting["label"]
        assert setting["description"].endswith(".")
        value = setting.get("value", kinds[setting["kind"]]())
        assert type(value) is kinds[setting["kind"]] or str(value).startswith("$PG_")


@pytest.mark.parametrize("name", ["target-postgres", "target-snowflake", "target-csv"])
def test_meltano_knows_targets_as_they_know_themselves(programs: Programs, name: str) -> None:
    """Those on the Singer SDK, which say it: capabilities, names and kinds of settings, and what is required."""
    folder = Path(sysconfig.get_path("scripts")) if name == "target-postgres" else programs(name)
    shown = subprocess.run([folder / name, "--about", "--format=json"], capture_output=True, text=True, check=True)
    said, ours = json.loads(shown.stdout), loader(name)
    assert sorted(ours["capabilities"]) == sorted(said["capabilities"])
    known = {name: schema["type"] for name, schema in said["settings"]["properties"].items()}
    for setting in ours["settings"]:
        assert setting["kind"] in known[setting["name"]], setting
    assert {setting["name"] for setting in ours["settings"]} >= {*said["settings"].get("required", ())}


@pytest.mark.parametrize("name", LOADERS)
def test_the_docs_name_the_version_of_each_target(name: str) -> None:
    """The one that was tried is the one that Meltano installs."""
    [row] = re.findall(rf"^\| {name} \(.*$", (readme.DOCS / "targets.md").read_text(), re.MULTILINE)
    tried = row.split(" | ")[1].split(",")[0]
    [requirement] = [each for each in loader(name)["pip_url"].split() if name in each]
    assert re.split("[=>]=", requirement)[1] == tried


def test_the_snowflake_of_the_docs_has_settings_that_meltano_knows() -> None:
    """And one whole group of those that are needed."""
    [shown] = yaml.safe_load(readme.block("snowflake"))
    target = loader(shown["name"])
    assert set(shown["config"]) <= {setting["name"] for setting in target["settings"]}
    assert any(set(group) <= set(shown["config"]) for group in target["settings_group_validation"])


def test_the_example_env_names_every_setting_of_the_tap_itself(
    settings: dict[str, dict[str, Any]],
) -> None:
    """Those of the SDK aside, which are objects mostly; with their defaults, and no secret."""
    text = (ROOT / ".env.example").read_text()
    named = dict(re.findall(rf"^(?:# )?{PREFIX}(\w+)=(.*)$", text, re.MULTILINE))
    own = [name for name in settings if not name.startswith(("stream_map", "faker_", "flattening_", "batch_"))]
    assert sorted(named) == sorted(name.upper() for name in own)
    for name in own:
        default = settings[name].get("default")
        if default is not None and name != "user_agent":
            assert named[name.upper()].lower() == str(default).lower()
        if settings[name].get("secret"):
            assert not named[name.upper()]


def test_the_lock_names_the_public_index_alone() -> None:
    """A private index of whoever locked would not be reached by others."""
    hosts = set(re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text()))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def test_the_changelog_knows_this_version() -> None:
    """A released one has a section of its own; between two, there is one for what comes."""
    text = (ROOT / "CHANGELOG.md").read_text()
    known = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    here = version("tap-mde-kbs")
    assert known[0] == "Unreleased"
    assert (here if re.fullmatch(r"\d+\.\d+\.\d+", here) else "Unreleased") in known


def test_what_a_release_had_is_still_there() -> None:
    """Settings, by an old name perhaps; columns with their types; keys. See `tests/support/released.py`."""
    known = json.loads(released.RELEASED.read_text())
    assert set(known["settings"]) <= {*released.settings(), *RENAMED}
    today = released.streams()
    for name, columns in known["streams"].items():
        assert released.gone(columns, today.get(name, {})) == {}, name
        keys = {column: kind for column, kind in today[name].items() if kind.endswith(", key")}
        assert released.gone(keys, columns) == {}, name


def test_a_dotenv_file_gets_into_no_commit_and_no_image() -> None:
    """Git ignores it, where there is git; of the checkout an image gets what was built for it."""
    assert not git("rev-parse", "HEAD") or git("check-ignore", ".env") == ".env\n"
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules == ["*", "!dist/image/"]


def test_the_security_page_names_every_host_and_every_permission() -> None:
    """What the tap may do, by its settings and by what it asks for."""
    text = (ROOT / "SECURITY.md").read_text()
    urls = [url for cloud in CLOUDS.values() for url in (cloud.authority_url, cloud.api_url)]
    urls += [DEFAULTS[f"{feed}_url"] for feed in FEEDS]
    hosts = {str(urlsplit(url).hostname) for url in urls}
    permissions = {LIST_PERMISSION, MISSING_KBS_PERMISSION, EXPORT_PERMISSION}
    assert {name for name in hosts | permissions if f"`{name}`" not in text} == set()


def test_the_licence_is_whole() -> None:
    """Apache-2.0, from its title to the end of its appendix."""
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert text.endswith("limitations under the License.\n")


def test_no_tracked_file_names_a_place_of_one_machine() -> None:
    """No home folder, and not where this checkout is."""
    here = f"{ROOT}/"
    named = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in tracked()
        for line in path.read_text(errors="replace").splitlines()
        if here in line or HOMES.search(line)
    ]
    assert not named

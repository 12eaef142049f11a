"""The tap's definition for Meltano Hub: `python -m tests.support.hub` writes it, a test compares it.

What the code knows is from `--about`; what only Meltano asks for (labels of choices, which settings belong together)
is from `meltano.yml`, which other tests hold against the code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.readme import about

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
DEFINITION = ROOT / "meltano-hub" / "tap-mde-kbs.yml"
LOGO = ROOT / "docs" / "logo.svg"
"""In the hub's repository: static, and then what `logo_url` says."""
HEADER = """\
# For github.com/meltano/hub: _data/meltano/extractors/tap-mde-kbs/<variant>.yml, and docs/logo.svg there as
# static/assets/logos/extractors/mde-kbs.svg. `python -m tests.support.hub` writes it.
"""
UNPUBLISHED = """\
# Where it is published is not known yet: `variant` says so, and `repo`, `pip_url` and `docs` are left out. With
# `repo_url` and `site_url` in mkdocs.yml they are written, too.
"""
DOCUMENT = {
    "domain_url": "https://learn.microsoft.com/defender-endpoint/api/get-missing-kbs-machine",
    "keywords": [
        "api",
        "endpoint security",
        "kb",
        "meltano_sdk",
        "microsoft",
        "microsoft defender",
        "patch management",
        "security updates",
        "vulnerability management",
        "windows",
    ],
    "label": "Microsoft Defender for Endpoint: Missing KBs",
    "logo_url": "/assets/logos/extractors/mde-kbs.svg",
    # As pyproject.toml classifies it.
    "maintenance_status": "beta",
    # The hub's maintainers rate it.
    "quality": "unknown",
    "prereq": """\
- An application in Entra ID with the *application* permissions `Machine.Read.All` and `Software.Read.All` of
  WindowsDefenderATP (for an export `Vulnerability.Read.All` instead of the second), and an administrator's consent.
- Defender for Endpoint Plan 2, or Defender Vulnerability Management.
""",
    "settings_preamble": """\
`auth_method` chooses the credential, and with it what is needed besides `tenant_id`: `client_id` and `client_secret`;
`client_id` and `certificate_file`; `client_id` and a federated token's file; or nothing, for a managed identity.
""",
    "next_steps": """\
Let the tap look at settings, sign-in and permissions; it says what to do about what is wrong:

```bash
meltano invoke tap-mde-kbs --test
```
""",
    "usage": """\
Each machine costs a call of the API's quota, 1,500 an hour. A run that was killed, or that `time_limit_minutes` ended,
goes on in the next one. Targets that take ACTIVATE_VERSION mark the updates that were installed and the machines that
left; in any warehouse, what is missing now are the rows of `missing_kbs` that are not older than the machine's last
`answered` check in `missing_kbs_checks`.
""",
}
KINDS = {"number": "decimal"}
"""What Meltano calls the types of JSON schema."""
WITHOUT_VALUE = "user_agent"
"""Its default names a version, and Meltano would go on to send it."""


class Dumper(yaml.SafeDumper):
    """Text of several lines as such."""


Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def setting(name: str, schema: dict[str, Any], in_meltano: dict[str, Any]) -> dict[str, Any]:
    """A setting as the hub describes it."""
    kind = next(each for each in schema["type"] if each != "null")
    described: dict[str, Any] = {
        "name": name,
        "label": schema["title"],
        "description": schema["description"],
        "kind": KINDS.get(kind, kind),
    }
    if "enum" in schema:
        described |= {"kind": "options", "options": in_meltano["options"]}
    if "default" in schema and name != WITHOUT_VALUE:
        described["value"] = schema["default"]
    if schema.get("secret"):
        described["sensitive"] = True
    return described


def mkdocs() -> dict[str, Any]:
    """What mkdocs.yml says."""
    return dict(yaml.safe_load((ROOT / "mkdocs.yml").read_text()))


def published(site: Mapping[str, Any]) -> dict[str, str]:
    """Whose it is and where it is, as far as mkdocs.yml says so.

    Args:
        site: What mkdocs.yml says: with a `repo_url` it is published, and whose that is is the variant; `site_url` is
            where its docs are, else the repository shows them.
    """
    repo = str(site.get("repo_url") or "").rstrip("/")
    if not repo:
        return {"variant": "unpublished"}
    return {
        "variant": repo.split("/")[-2].lower(),
        "repo": repo,
        "pip_url": "tap-mde-kbs",
        "docs": site.get("site_url") or f"{repo}#readme",
    }


def definition(site: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All that the hub is told, in its order: lists sorted, too.

    Args:
        site: See `published`; by default mkdocs.yml.
    """
    known = about()
    project = yaml.safe_load((ROOT / "meltano.yml").read_text())
    [extractor] = project["plugins"]["extractors"]
    in_meltano = {each["name"]: each for each in extractor["settings"]}
    return {
        **DOCUMENT,
        **published(mkdocs() if site is None else site),
        **{name: known[name] for name in ("name", "description", "supported_python_versions")},
        **{name: extractor[name] for name in ("namespace", "executable", "select")},
        "capabilities": sorted(known["capabilities"]),
        "settings_group_validation": [sorted(group) for group in extractor["settings_group_validation"]],
        "settings": [
            setting(name, schema, in_meltano[name]) for name, schema in sorted(known["settings"]["properties"].items())
        ],
    }


def rendered() -> str:
    """The file."""
    told = definition()
    header = HEADER if "repo" in told else HEADER + UNPUBLISHED
    return header + yaml.dump(told, Dumper=Dumper, sort_keys=True, allow_unicode=True, width=120)


if __name__ == "__main__":
    DEFINITION.write_text(rendered())

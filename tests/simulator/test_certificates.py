"""The throw-away certificates and the bundle of who is trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_mde_kbs.simulator import certificates

if TYPE_CHECKING:
    from pathlib import Path


def test_no_private_key_stays_on_the_disk(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ca.pem"]
    assert "PRIVATE" not in (tmp_path / "ca.pem").read_text()


def test_every_simulator_has_an_authority_of_its_own(tmp_path: Path) -> None:
    found = set()
    for _ in range(2):
        certificates.make(tmp_path)
        found.add((tmp_path / "ca.pem").read_text())
    assert len(found) == 2


def test_the_bundle_holds_what_the_shell_trusted_before(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    company = tmp_path / "company.pem"
    company.write_text("the company's authority\n")
    bundle = certificates.write_bundle(tmp_path, {"REQUESTS_CA_BUNDLE": str(company)})
    text = bundle.read_text()
    assert text.startswith((tmp_path / "ca.pem").read_text())
    assert "the company's authority" in text


def test_the_bundle_holds_the_public_authorities_else(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    for environment in ({}, {"REQUESTS_CA_BUNDLE": "/no/such/file"}):
        bundle = certificates.write_bundle(tmp_path, environment)
        assert bundle.read_text().count("BEGIN CERTIFICATE") > 50

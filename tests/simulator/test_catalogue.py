"""The catalogue of updates."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from mde_simulator.fleet.catalogue import SOFTWARE, WINDOWS, Catalogue, patch_tuesday

START = date(2026, 1, 5)


@pytest.mark.parametrize(
    ("year", "month", "day"),
    [(2026, 1, 13), (2026, 2, 10), (2025, 7, 8), (2026, 9, 8), (2024, 10, 8)],
)
def test_patch_tuesday_is_the_second_tuesday(year: int, month: int, day: int) -> None:
    assert patch_tuesday(year, month) == date(year, month, day)


def test_most_updates_come_on_patch_tuesday_and_some_out_of_band() -> None:
    updates = Catalogue(1, START).published(365)
    days = [START + timedelta(days=update.published) for update in updates]
    on_time = sum(day == patch_tuesday(day.year, day.month) for day in days)
    assert 0.85 < on_time / len(days) < 1


def test_nothing_is_published_before_its_day() -> None:
    catalogue = Catalogue(1, START)
    before, after = catalogue.published(7), catalogue.published(8)
    assert len(after) > len(before)
    assert all(update.published == 8 for update in after if update not in before)


def test_asking_far_ahead_changes_nothing_of_the_past() -> None:
    far, near = Catalogue(3, START), Catalogue(3, START)
    far.published(900)
    assert far.published(30) == near.published(30)


def test_ids_are_unique_numbers_without_kb() -> None:
    ids = [update.id for update in Catalogue(1, START).published(3650)]
    assert len(ids) == len(set(ids))
    assert all(id_.isdecimal() for id_ in ids)


def test_updates_are_for_windows_and_other_products_of_microsoft() -> None:
    products = {update.product for update in Catalogue(1, START).published(365)}
    assert products == {*WINDOWS, *SOFTWARE}


def test_os_build_is_a_number_a_text_or_null_and_name_and_url_may_be_null() -> None:
    rows = [update.row(1) for update in Catalogue(1, START).published(365)]
    assert {type(row["osBuild"]) for row in rows} == {int, str, type(None)}
    assert {type(row["name"]) for row in rows} == {str, type(None)}
    assert {type(row["url"]) for row in rows} == {str, type(None)}


def test_a_row_has_the_documented_properties() -> None:
    update = Catalogue(1, START).published(0)[0]
    assert update.row(7) == {
        "id": update.id,
        "name": "July 2025 Security Updates",
        "osBuild": update.os_build,
        "productsNames": list(update.products),
        "url": f"https://catalog.update.microsoft.com/v7/site/Search.aspx?q=KB{update.id}",
        "machineMissedOn": 7,
        "cveAddressed": update.cves,
    }

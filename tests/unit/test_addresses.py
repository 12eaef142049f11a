"""Addresses: however one writes the same, it is the same; what is none is refused without a word of it."""

from __future__ import annotations

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tap_mde_kbs import addresses
from tap_mde_kbs.errors import AddressError

HOST = "https://api.example"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://API.Example", HOST),
        ("HTTPS://api.example/", HOST),
        (" https://api.example\r\n", HOST),
        ("\ufeffhttps://api.example\u00a0", HOST),
        ("https://api.example.", HOST),
        ("https://api.example:443//", HOST),
        ("https://api.example:", HOST),
        ("https://api.example?", HOST),
        ("https://api.example/./x/../", HOST),
        ("https://api.example/%2e%2E/", HOST),
        ("https://api.example/api", HOST),
        ("https://api.example/API/", HOST),
        ("https://api.example/%61pi", HOST),
        ("https://api.example//api/machines", HOST),
        ("https://api.example:8443/api", f"{HOST}:8443"),
        ("https://api.example/gateway/api", f"{HOST}/gateway"),
        ("https://api.example/apiary", f"{HOST}/apiary"),
        ("https://api.example/%e4b", f"{HOST}/%E4b"),
        ("https://api.example/ä", f"{HOST}/%C3%A4"),
        ("https://Bücher.example", "https://xn--bcher-kva.example"),
        ("https://\uff41\uff50\uff49\u3002example", HOST),
        ("https://[2001:DB8:0:0::1]:8443/", "https://[2001:db8::1]:8443"),
        ("https://127.0.0.1:8443/", "https://127.0.0.1:8443"),
    ],
)
def test_an_api_url_has_one_form(text: str, url: str) -> None:
    assert addresses.api_url(text) == addresses.api_url(url) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "api.example",
        "http://api.example",
        "ftp://api.example",
        "https:api.example",
        "https:/api.example",
        "https://",
        "https:///api",
        "https://user:secret@api.example",
        "https://@api.example",
        "https://api.example@",
        "https://api.example?x=1",
        "https://api.example#top",
        "https://api.example\\api",
        "https://api.example\\@elsewhere.example",
        "https://api.example/\nx",
        "https://api .example",
        "https://api.ex\u200bample",
        "https://api.example:0",
        "https://api.example:65536",
        "https://api.example:port",
        "https://api.example:+443",
        "https://[::1",
        "https://[::1%25eth0]",
        "https://[v1.x]",
        "https://127.1",
        "https://2130706433",
        "https://0x7f.0.0.1",
        "https://-api.example",
        "https://api..example",
        "https://api%2eexample",
        "https://{region}.api.example",
        "https://<region>.api.example",
        "https://api.example/{tenant}",
        "https://api.example/a%zz",
        f"https://{'a' * 64}.example",
        f"https://{'a.' * 127}example",
    ],
)
def test_what_is_no_address_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(AddressError) as told:
        addresses.api_url(text)
    assert str(told.value).startswith("an https:// URL of a host: no http, no user, no query")


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "/",
        "/contoso.example",
        "/CONTOSO.example/",
        "/contoso.example/oauth2/v2.0/token",
        "/contoso.example/oauth2/token",
        "/contoso.example/v2.0",
        "/contoso.example/v2.0/.well-known/openid-configuration",
    ],
)
def test_an_authority_is_its_host(tail: str) -> None:
    assert addresses.authority_url(f"https://Login.example{tail}", "contoso.example") == "https://login.example"


@pytest.mark.parametrize("tail", ["/common", "/another.example", "/contoso.example/x", "/x/contoso.example"])
def test_another_path_of_an_authority_is_refused(tail: str) -> None:
    with pytest.raises(AddressError, match="no path"):
        addresses.authority_url(f"https://login.example{tail}", "contoso.example")


@given(st.text(st.sampled_from("aA1.:/[]%2eE@?#\\ \n-_ä。{"), max_size=20))
def test_whatever_is_taken_stays_as_it_is_and_is_what_a_call_goes_to(rest: str) -> None:
    """So that no call of a tap with that setting can be taken for one to another host."""
    try:
        url = addresses.api_url(f"https://{rest}")
    except AddressError:
        return
    assert addresses.api_url(url) == url
    called = requests.Request("GET", f"{url}/api/machines", params={"$top": 1}).prepare().url
    assert called is not None
    assert called.startswith(f"{url}/api/machines?")

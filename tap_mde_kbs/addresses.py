"""Addresses that people give: a URL in its one normal form, or why it can't be one. Makes no call.

Two ways to write the same address give the same text, so that texts can be compared: by the sign-in, which puts the
token on calls to one host alone, by links, and by the scope of a sweep.

Source: RFC 3986, sections 3 and 6.2; names of hosts by UTS 46.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import idna
import requests

from tap_mde_kbs.errors import AddressError
from tap_mde_kbs.given import AROUND

if TYPE_CHECKING:
    from collections.abc import Iterable

API_TAIL = re.compile(r"(/api(/machines)?)+$", re.IGNORECASE)
"""What other clients want behind the API's host; here every call brings it along."""

SIGN_IN_TAIL = re.compile(r"(/oauth2)?(/v2\.0)?(/token|/authorize|/\.well-known/openid-configuration)?$", re.IGNORECASE)
"""What stands behind the tenant in the endpoints that Entra ID's pages show."""

LONGEST_HOST = 253
"""Characters of a host's name: RFC 1035, section 2.3.4, without the two of its wire form."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_LAST_OF_AN_IP_ADDRESS = re.compile(r"0x[0-9a-f]*|[0-9]+")
"""What no name of a host ends in; of the forms of an address that it may end, one is taken."""

_NOT_IN_A_PATH = re.compile(r"[\x00-\x20\x7f\"<>\\^`{|}]|%(?![0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"%(2[DE]|3[0-9]|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])", re.IGNORECASE)
_IT_MUST = "an https:// URL of a host: no http, no user, no query"


def api_url(text: str) -> str:
    """The API's address: https, host, perhaps a port and a gateway's path, without `/api` or a slash at its end.

    Raises:
        AddressError: It is none.
    """
    return API_TAIL.sub("", https_url(text))


def authority_url(text: str, tenant_id: str = "") -> str:
    """The sign-in's address: https, host and perhaps a port; the tenant behind it is taken off.

    Args:
        text: The address, or an endpoint of the tenant's, as Entra ID's pages show it.
        tenant_id: The tenant that may stand behind the host.

    Raises:
        AddressError: It is none, or has another path: MSAL takes the first segment of a path for the tenant.
    """
    url = https_url(text)
    parts = urlsplit(url)
    tenant = SIGN_IN_TAIL.sub("", parts.path).strip("/")
    if tenant.casefold() not in {"", tenant_id.strip().casefold()}:
        msg = f"{_IT_MUST}, no path (the tenant is a setting of its own)"
        raise AddressError(msg)
    return f"{parts.scheme}://{parts.netloc}"


def url_or_path(text: str) -> str:
    """An https URL in its one form, or a path as it is.

    Raises:
        AddressError: It is neither.
    """
    if text.lower().startswith("file:"):
        msg = "an https:// URL, or the path of a file without file:"
        raise AddressError(msg)
    return https_url(text) if "://" in text else text


def https_url(text: str) -> str:
    """An https URL of a host, perhaps with a port and a path, normalised; no slash at its end.

    Raises:
        AddressError: It is none, or has a user, a query or a fragment.
    """
    text = _checked(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # a port that is no number, an IPv6 address without its bracket
        raise AddressError(_IT_MUST) from None
    if parts.scheme != "https" or "@" in parts.netloc or parts.query or parts.fragment or port == 0:
        raise AddressError(_IT_MUST)
    if ("[" in parts.netloc) != (":" in (parts.hostname or "")):  # brackets around a version that nobody has defined
        raise AddressError(_IT_MUST)
    host = _host(parts.hostname or "")
    url = f"https://{host}{'' if port in {None, 443} else f':{port}'}{_path(parts.path)}"
    # What requests makes of it must be the same: the token goes by a comparison of texts.
    prepared = requests.PreparedRequest()
    try:
        prepared.prepare_url(f"{url}/", None)
    except (requests.RequestException, ValueError):
        raise AddressError(_IT_MUST) from None
    if prepared.url != f"{url}/":
        raise AddressError(_IT_MUST)
    return url


def _checked(text: str) -> str:
    """The text without what is around it; nothing that a parser would drop or take for something else is in it."""
    text = text.strip(AROUND)
    if re.search(r"[\x00-\x20\x7f-\xa0\\]", text) or any(character in text for character in AROUND):
        msg = f"{_IT_MUST}, no blank, backslash or control character in it"
        raise AddressError(msg)
    if "://" not in text:
        msg = f"{_IT_MUST}, and https:// in front"
        raise AddressError(msg)
    return text


def _host(host: str) -> str:
    """A host as it is looked up: lower case, punycode, no dot at its end; an IP address in its shortest form."""
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            raise AddressError(_IT_MUST) from None
        if address.scope_id:  # an interface of this machine, which no certificate can name
            raise AddressError(_IT_MUST)
        return f"[{address}]"
    try:
        name = host if host.isascii() else idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise AddressError(_IT_MUST) from None
    name = name.lower().removesuffix(".")
    if len(name) > LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise AddressError(_IT_MUST)
    if _LAST_OF_AN_IP_ADDRESS.fullmatch(name.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise AddressError(_IT_MUST) from None
    return name


def _path(path: str) -> str:
    """A path without empty and dot segments, percent-encoded only where it must be; no slash at its end."""
    if _NOT_IN_A_PATH.search(path):
        raise AddressError(_IT_MUST)
    plain = _UNRESERVED.sub(lambda found: unquote(found.group()), quote(path, safe="/%:@!$&'()*+,;=~"))
    encoded = re.sub(r"%[0-9a-f]{2}", lambda found: found.group().upper(), plain, flags=re.IGNORECASE)
    return "".join(f"/{segment}" for segment in _resolved(encoded.split("/")))


def _resolved(segments: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment not in {"", "."}:
            kept.append(segment)
    return kept

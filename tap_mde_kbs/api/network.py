"""What happened to a call that got no answer: in a sentence, with what to do, and whether another try may help.

Decided by what is at the bottom of the chain of exceptions, not by the type that a library wraps around it. Must not
know what was asked, or of whom.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple

import requests
from urllib3.exceptions import HTTPError, LocationParseError, NameResolutionError, ProxySchemeUnknown

from tap_mde_kbs.errors import certificate_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_mde_kbs.api.session import Session

PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
"""Where requests looks for the proxy of an https host, in its order."""

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
"""What a proxy may answer to CONNECT, or a public host to a GET, that another try may better."""

UNREADABLE = (
    requests.exceptions.InvalidURL,  # an InvalidProxyURL is one
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader,
    LocationParseError,
    ProxySchemeUnknown,
    UnicodeError,
)
"""What is raised for an address before any call is made."""

_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_NO_CERTIFICATES = re.compile(r"NO_CERTIFICATE_OR_CRL_FOUND|PEM lib|no start line|TLS CA certificate bundle")


class NetworkFault(NamedTuple):
    """Why a call got no answer."""

    what: str
    """A sentence."""

    advice: str
    """What to do, where the caller has no better advice; may be empty."""

    may_pass: bool
    """Whether another try may help."""


def network_fault(error: BaseException, where: str, session: Session) -> NetworkFault:
    """Say why a call got no answer.

    Args:
        error: What requests raised.
        where: Who was called, as a message names it.
        session: What the call was made with: its timeout, and whether it has a proxy.
    """
    chain = [*_chain(error)]
    text = " ".join(str(each) for each in chain)
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in chain):
        return NetworkFault(certificate_error(where, error), "", may_pass=False)
    if _NO_CERTIFICATES.search(text):
        variable = _set(CA_VARIABLES) or CA_VARIABLES[0]
        what = f"The file that {variable} names is not all certificates in PEM."
        return NetworkFault(what, "Correct or unset it.", may_pass=False)
    proxy = _set(PROXY_VARIABLES) if session.proxies else None
    if proxy and (fault := _proxy_fault(chain, text, where, proxy)):
        return fault
    if any(isinstance(each, UNREADABLE) for each in chain):
        what = f"No call to {where} could be made: its address, or a header, is malformed ({type(error).__name__})."
        return NetworkFault(what, "", may_pass=False)
    through = f"{where} (through the proxy of {proxy})" if proxy else where
    return _connection_fault(chain, through, session.timeout) or NetworkFault(
        f"No call to {where} could be made ({type(error).__name__}).", "", may_pass=False
    )


def _proxy_fault(chain: list[BaseException], text: str, where: str, variable: str) -> NetworkFault | None:
    """What a proxy did, or what is wrong with its address: which is not quoted, since a password may be in it."""
    address = os.environ[variable]
    if "SOCKS support" in text:
        what = f"{variable} names a SOCKS proxy, which needs the package PySocks: no call was made."
        return NetworkFault(what, "Install it beside the tap, or name an HTTP proxy.", may_pass=False)
    is_unreadable = any(isinstance(each, UNREADABLE) or type(each) is ValueError for each in chain)
    if is_unreadable or address != address.strip(" \t\r\n\"'"):
        what = f"{variable} is no address of a proxy: no call was made."
        advice = "Write it as http://HOST:PORT, with USER:PASSWORD@ before HOST; percent-encode / @ : # ? [ % in these."
        return NetworkFault(what, advice, may_pass=False)
    if tunnel := _TUNNEL.search(text):
        status = int(tunnel.group(1))
        what = f"The proxy of {variable} answered HTTP {status}, and let no call through to {where}."
        advice = (
            f"Put its user and password into {variable}, percent-encoded."
            if status == requests.codes.proxy_authentication_required
            else "Have the host let through, or except it in NO_PROXY where it needs no proxy."
        )
        return NetworkFault(what, advice, may_pass=status in PASSING_STATUS)
    if any(isinstance(each, requests.exceptions.ProxyError) for each in chain):
        what = f"The proxy of {variable} can't be reached, or broke off the connection to {where}."
        return NetworkFault(what, f"Correct or unset {variable}.", may_pass=True)
    return None


def _connection_fault(chain: list[BaseException], where: str, timeout: float) -> NetworkFault | None:
    """What may be otherwise at the next try."""
    for kinds, what in (
        (
            (requests.exceptions.Timeout, socket.timeout),
            f"{where} gave no answer within {timeout:.0f} s (request_timeout_seconds).",
        ),
        ((NameResolutionError, socket.gaierror), f"The name of {where} could not be resolved."),
        ((ConnectionRefusedError,), f"The connection to {where} could not be made: it was refused."),
        (
            (ssl.SSLError, requests.exceptions.SSLError),
            f"{where} broke off the TLS handshake, or does not speak TLS.",
        ),
        (
            (requests.exceptions.RequestException, HTTPError, OSError),
            f"The connection to {where} broke or could not be made ({type(chain[0]).__name__}).",
        ),
    ):
        if any(isinstance(each, kinds) for each in chain):
            return NetworkFault(what, "", may_pass=True)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and all that are in it or behind it, each once."""
    todo: list[object] = [error]
    met: set[int] = set()
    while todo:
        each = todo.pop(0)
        if isinstance(each, BaseException) and id(each) not in met:
            met.add(id(each))
            yield each
            todo += [*each.args, getattr(each, "reason", None), each.__cause__, each.__context__]


def _set(variables: tuple[str, ...]) -> str | None:
    """The first of these environment variables that is set."""
    return next((name for name in variables if os.environ.get(name)), None)

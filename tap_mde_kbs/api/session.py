"""HTTP sessions: the environment's proxy and CA, a timeout, no redirects.

A redirect is never followed, since a token or a secret would go along. Knows nothing of the quota, and must not know
tokens or streams.
"""

from __future__ import annotations

import os
from typing import Any

import requests
from typing_extensions import override

from tap_mde_kbs.api.http import BoundedAdapter
from tap_mde_kbs.errors import SettingsError


class Session(requests.Session):
    """A session for one host, with a timeout and without redirects.

    Proxy and CA are taken from the environment once: looking there at every call cost 9 % of the CPU.

    Args:
        url: Any URL of the host.
        timeout: Seconds to wait for a connection, and for each next piece of an answer.

    Raises:
        SettingsError: REQUESTS_CA_BUNDLE names no file.
    """

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__()
        environment = self.merge_environment_settings(url, {}, None, None, None)
        self.proxies = dict(environment["proxies"])
        self.verify = environment["verify"]
        if isinstance(self.verify, str) and not os.access(self.verify, os.R_OK):
            msg = f"REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE) names a file that can't be read: {self.verify}."
            raise SettingsError(msg, "Correct or unset it.")
        self.trust_env = False
        self.timeout = timeout
        for prefix in ("https://", "http://"):
            self.mount(prefix, BoundedAdapter())

    @override
    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("timeout", self.timeout)
        kwargs["allow_redirects"] = False  # not a default: requests' own `get` asks for them
        return super().request(method, url, *args, **kwargs)

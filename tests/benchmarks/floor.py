"""The floor: the same calls with nothing but requests and json. Whatever a tap does besides costs more.

A contestant of `compare.py`: `python floor.py config.json`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import requests


def sign_in(session: requests.Session, config: dict[str, str]) -> None:
    """Put a token on every call."""
    form = {
        "grant_type": "client_credentials",
        "client_id": config["client_id"],
        "client_secret": config["client_secret"],
        "scope": "https://api.securitycenter.microsoft.com/.default",
    }
    answer = session.post(f"{config['authority_url']}/{config['tenant_id']}/oauth2/v2.0/token", form)
    session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


def get(session: requests.Session, url: str) -> dict[str, Any]:
    """One answer."""
    answer = session.get(url)
    answer.raise_for_status()
    document: dict[str, Any] = json.loads(answer.content)
    return document


def write(stream: str, record: dict[str, Any]) -> None:
    """One line."""
    sys.stdout.write(json.dumps({"type": "RECORD", "stream": stream, "record": record}) + "\n")


def main(config: dict[str, str]) -> None:
    """List the machines, and ask for each."""
    session = requests.Session()
    session.verify = os.environ["REQUESTS_CA_BUNDLE"]
    session.trust_env = False  # looking for proxies at each call would make the floor a tenth higher
    sign_in(session, config)
    url, ids = f"{config['api_url']}/api/machines", []
    while url:
        page = get(session, url)
        for machine in page["value"]:
            write("machines", machine)
            ids.append(machine["id"])
        url = page.get("@odata.nextLink", "")
    for machine_id in ids:
        for update in get(session, f"{config['api_url']}/api/machines/{machine_id}/getmissingkbs")["value"]:
            write("missing_kbs", {"machineId": machine_id, **update})


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))

"""What people write before they look for a tap: a loop over the machines, and a file of what came.

A contestant of `alternatives.py`: `python loop_script.py config.json missing.csv`. It is a careful one of its kind: it
waits as long as a 429 says, goes on after a machine that fails, and replaces its file only at the end.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import requests

COLUMNS = ("machine_id", "id", "name")


def get(session: requests.Session, url: str) -> dict[str, Any]:
    """One answer, after a 429 as late as it says.

    Raises:
        RequestException: There is none.
    """
    while True:
        answer = session.get(url, timeout=60)
        if answer.status_code != requests.codes.too_many_requests:
            break
        time.sleep(int(answer.headers.get("Retry-After", "60")))
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document


def main(config: dict[str, str], path: Path) -> None:
    """List the machines, ask for each, write the file."""
    session = requests.Session()
    session.verify = os.environ["REQUESTS_CA_BUNDLE"]
    form = {
        "grant_type": "client_credentials",
        "client_id": config["client_id"],
        "client_secret": config["client_secret"],
        "scope": "https://api.securitycenter.microsoft.com/.default",
    }
    token = session.post(f"{config['authority_url']}/{config['tenant_id']}/oauth2/v2.0/token", form, timeout=60)
    session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
    url, machines, rows = f"{config['api_url']}/api/machines", [], []
    while url:
        page = get(session, url)
        machines += page["value"]
        url = page.get("@odata.nextLink", "")
    for machine in machines:
        try:
            answer = get(session, f"{config['api_url']}/api/machines/{machine['id']}/getmissingkbs")
        except requests.RequestException as error:
            sys.stderr.write(f"{machine['id']}: {error}\n")
            continue
        rows += [{"machine_id": machine["id"], **update} for update in answer["value"]]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

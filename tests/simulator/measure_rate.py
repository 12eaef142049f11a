"""How many calls of `getmissingkbs` a second the simulator answers: a script, not a test.

    python tests/simulator/measure_rate.py [processes] [connections of each] [seconds]

The clients are processes of their own with raw keep-alive connections, so that they cost little;
the simulator is a process of its own too, started by its command line.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import ssl
import subprocess
import sys
import threading
import time
from urllib.parse import urlencode, urlsplit

Environment = dict[str, str]


def connect(environment: Environment) -> http.client.HTTPSConnection:
    """A connection that trusts the simulator."""
    context = ssl.create_default_context(cafile=environment["REQUESTS_CA_BUNDLE"])
    port = urlsplit(environment["TAP_MDE_KBS_API_URL"]).port
    return http.client.HTTPSConnection("127.0.0.1", port, context=context)


def sign_in(environment: Environment) -> dict[str, str]:
    """The headers of a call."""
    form = {
        "grant_type": "client_credentials",
        "client_id": environment["TAP_MDE_KBS_CLIENT_ID"],
        "client_secret": environment["TAP_MDE_KBS_CLIENT_SECRET"],
        "scope": "https://api.securitycenter.microsoft.com/.default",
    }
    connection = connect(environment)
    path = f"/{environment['TAP_MDE_KBS_TENANT_ID']}/oauth2/v2.0/token"
    connection.request("POST", path, urlencode(form))
    token = json.load(connection.getresponse())["access_token"]
    connection.close()
    return {"Authorization": f"Bearer {token}", "Accept-Encoding": "deflate"}


def ask(environment: Environment, headers: dict[str, str], seconds: float, total: list[int]) -> None:
    """Ask for one machine after the other on one connection."""
    connection = connect(environment)
    connection.request("GET", "/api/machines", headers=headers | {"Accept-Encoding": "identity"})
    ids = [machine["id"] for machine in json.load(connection.getresponse())["value"]]
    until, done = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        connection.request("GET", f"/api/machines/{ids[done % 250]}/getmissingkbs", headers=headers)
        answer = connection.getresponse()
        answer.read()
        done += answer.status == http.client.OK
    total.append(done)
    connection.close()


def client(environment: Environment, connections: int, seconds: float, results: multiprocessing.Queue[int]) -> None:
    """One process of clients."""
    headers, total = sign_in(environment), list[int]()
    arguments = (environment, headers, seconds, total)
    threads = [threading.Thread(target=ask, args=arguments) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(sum(total))


def main(processes: int = 3, connections: int = 2, seconds: int = 5) -> None:
    """Start, ask, print."""
    command = [sys.executable, "-m", "mde_simulator", "--no-quota"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulator:
        environment: Environment = {}
        for line in simulator.stdout or ():
            if line.startswith("# ready"):
                break
            name, _, value = line.removeprefix("export ").strip().partition("=")
            environment[name] = value.strip("'")
        results: multiprocessing.Queue[int] = multiprocessing.Queue()
        arguments = (environment, connections, seconds, results)
        clients = [multiprocessing.Process(target=client, args=arguments) for _ in range(processes)]
        for process in clients:
            process.start()
        total = sum(results.get() for _ in clients)
        simulator.terminate()
    sys.stdout.write(f"{total / seconds:.0f} calls a second\n")


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))

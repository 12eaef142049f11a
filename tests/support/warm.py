"""Runs a command-line program again and again out of one Python that has imported it: each run is a fork, not a start.

Importing the tap takes a second, a fork some milliseconds. What runs is the program's own entry point, in a process of
its own with its own arguments, environment, folder, files and signals; only the imports are shared.

`tests/support/launch.py` starts it, as a script, so that nothing of the checkout is on the program's path:

    python warm.py serve ENTRY FILE    fork one process for each request that comes through the socket FILE
    python warm.py once REQUEST        run one request in this process, for programs that need a Python of their own
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import time
from operator import attrgetter
from typing import Any

LENGTH = struct.Struct("!Q")
"""Before a request: its length. With it come four files: stdin, stdout, stderr, and where to report to."""

REPORT = struct.Struct("!i")
"""What is reported: the process id, and at the end the status that `waitpid` gave."""


def found(entry: str) -> tuple[Any, str]:
    """The object that has an attribute, and the attribute's name, out of `package.module:Class.attribute`."""
    module, _, path = entry.partition(":")
    owner, _, name = path.rpartition(".")
    imported = importlib.import_module(module)
    return attrgetter(owner)(imported) if owner else imported, name


def set_attributes(values: dict[str, Any]) -> None:
    """Set attributes by their paths; of a dataclass an object gives the fields."""
    for path, value in values.items():
        owner, name = found(path)
        before = getattr(owner, name)
        if dataclasses.is_dataclass(before) and not isinstance(before, type):
            value = dataclasses.replace(before, **value)  # noqa: PLW2901 - what is given, as it is set
        setattr(owner, name, value)


def run(request: dict[str, Any]) -> None:
    """Run the program in this process, as its console script does."""
    if request["memory"]:
        resource.setrlimit(resource.RLIMIT_AS, (request["memory"], request["memory"]))
    sys.argv = request["argv"]
    set_attributes(request["attributes"])
    owner, name = found(request["entry"])
    sys.exit(getattr(owner, name)())


def serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each request; returns one in each process that is to run it, and never in this one."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
    while True:
        header, files, *_ = socket.recv_fds(control, LENGTH.size, 4)
        if not header:
            os._exit(0)
        request = json.loads(_read(control, LENGTH.unpack(header)[0]))
        if os.fork() == 0:
            control.close()
            return _watched(request, files)
        for file in files:
            os.close(file)


def _read(control: socket.socket, length: int) -> bytes:
    read = bytearray()
    while len(read) < length:
        read += control.recv(length - len(read))
    return bytes(read)


def _watched(request: dict[str, Any], files: list[int]) -> dict[str, Any]:
    """Fork once more: the parent reports how the child ends, the child is what the request asks for."""
    *standard, report = files
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():
        for file in standard:
            os.close(file)
        os.write(report, REPORT.pack(child))
        os.write(report, REPORT.pack(os.waitpid(child, 0)[1]))
        os._exit(0)
    os.close(report)
    if request["new_session"]:
        os.setsid()
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    return request


def main() -> None:
    """Serve, or run once."""
    del sys.path[0]  # the folder of this script, which is none of the program's
    what, *arguments = sys.argv[1:]
    if what == "serve":
        entry, file = arguments
        found(entry)
        run(serve(socket.socket(fileno=int(file))))
    else:
        run(json.loads(arguments[0]))


if __name__ == "__main__":
    main()

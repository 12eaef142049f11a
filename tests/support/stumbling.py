"""Servers on loopback that are none: a door that stumbles over its first connection, and one that knows one answer."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from typing_extensions import Self

ALERT = bytes.fromhex("15030300020228")
"""TLS: a fatal alert, handshake_failure."""

PLAIN = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
STUMBLES = {"close": b"", "reset": b"", "alert": ALERT, "plain": PLAIN, "half": ALERT[:3]}
"""What the first connection gets instead of a handshake."""


class Loopback:
    """A server on loopback that gives each connection to `meet`, from `with` to its end."""

    def __init__(self) -> None:
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                server.meet(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def meet(self, client: socket.socket) -> None:
        """Do with a connection what there is to do."""
        raise NotImplementedError


class Stumbling(Loopback):
    """The door.

    Args:
        port: Where the server is.
        how: One of `STUMBLES`.
        times: How many connections it stumbles over.
    """

    def __init__(self, port: int, how: str, times: int = 1) -> None:
        super().__init__()
        self._behind, self._how, self._left = port, how, times
        self.place = ("127.0.0.1", self.port)

    @override
    def meet(self, client: socket.socket) -> None:
        if self._left:
            self._left -= 1
            client.recv(2**16)
            client.sendall(STUMBLES[self._how])
            if self._how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        with socket.create_connection(("127.0.0.1", self._behind)) as server:
            back = threading.Thread(target=_carry, args=(server, client))
            back.start()
            _carry(client, server)
            back.join()


class Answering(Loopback):
    """Reads one request of each connection, answers with the same bytes, and closes.

    Attributes:
        met: How many connections came.
    """

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._answer = answer
        self.met = 0

    @override
    def meet(self, client: socket.socket) -> None:
        self.met += 1
        client.recv(2**16)
        client.sendall(self._answer)


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(2**16):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)

"""A forward proxy on loopback, as companies have one: CONNECT alone, with a password if wanted.

It counts what was asked of it, so that a test can see that a client went through it, and where to.
Whatever host is asked for, it may be made to lead elsewhere, so that a public name can be played.
"""

from __future__ import annotations

import base64
import hmac
import socket
import socketserver
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

PATIENCE = 30.0
MOST_LINES = 100


class Proxy:
    """A proxy, from `with` to its end.

    Args:
        user: Wanted of the client, with `password`; None: nobody is asked.
        password: The user's.
        leads: Where a host really is, `{"login.example": ("127.0.0.1", 8443)}`; others are where they say.

    Attributes:
        hosts: `host:port` of each tunnel that was made, oldest first.
        refused: How many were turned away for want of the password.
        bytes: How many went through, both ways.
    """

    def __init__(
        self, user: str | None = None, password: str = "", leads: Mapping[str, tuple[str, int]] | None = None
    ) -> None:
        self.user, self.password, self.leads = user, password, dict(leads or {})
        self.hosts: list[str] = []
        self.refused = 0
        self.bytes = 0
        self.lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server = _Server(("127.0.0.1", 0), _Tunnel)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        with self.lock:
            for each in self._open:
                _shut(each)
        self._server.server_close()

    @property
    def connections(self) -> int:
        """How many tunnels were made."""
        return len(self.hosts)

    @property
    def url(self) -> str:
        """For HTTPS_PROXY, with the password if there is one."""
        who = f"{self.user}:{self.password}@" if self.user else ""
        return f"http://{who}127.0.0.1:{self._server.server_address[1]}"

    def lets_in(self, authorization: str) -> bool:
        """Whether the header Proxy-Authorization will do."""
        if self.user is None:
            return True
        wanted = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return hmac.compare_digest(authorization.encode(), f"Basic {wanted}".encode())

    def holds(self, connection: socket.socket, *, still: bool) -> None:
        """A connection began, or is at its end."""
        with self.lock:
            (self._open.add if still else self._open.discard)(connection)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = False
    block_on_close = True
    proxy: Proxy


class _Tunnel(socketserver.StreamRequestHandler):
    """One client, and one tunnel."""

    server: _Server
    timeout = PATIENCE
    rbufsize = 0  # Nothing of what follows the request may stay in a buffer.

    def handle(self) -> None:
        proxy = self.server.proxy
        proxy.holds(self.connection, still=True)
        try:
            with suppress(OSError):
                self._serve(proxy)
        finally:
            proxy.holds(self.connection, still=False)

    def _serve(self, proxy: Proxy) -> None:
        method, target, *_ = [*self._line().split(" "), "", ""]
        headers: dict[str, str] = {}
        for _number in range(MOST_LINES):
            line = self._line()
            if not line:
                break
            name, _colon, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        host, _colon, port = target.rpartition(":")
        if method != "CONNECT" or not host or not port.isdecimal():
            self._say("405 Method Not Allowed")
        elif not proxy.lets_in(headers.get("proxy-authorization", "")):
            with proxy.lock:
                proxy.refused += 1
            self._say("407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="proxy"')
        else:
            self._connect(proxy, target, proxy.leads.get(host, (host.strip("[]"), int(port))))

    def _connect(self, proxy: Proxy, target: str, address: tuple[str, int]) -> None:
        try:
            other = socket.create_connection(address, timeout=PATIENCE)
        except OSError:
            self._say("502 Bad Gateway")
            return
        with other:
            proxy.holds(other, still=True)
            with proxy.lock:
                proxy.hosts.append(target)
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self._pump, args=(other, self.connection))
            back.start()
            self._pump(self.connection, other)
            back.join()
            proxy.holds(other, still=False)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Pass on what comes, to the end of either side."""
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
                with self.server.proxy.lock:
                    self.server.proxy.bytes += len(data)
        _shut(source)
        _shut(sink)

    def _line(self) -> str:
        return self.rfile.readline(65_536).decode("latin-1").rstrip("\r\n")

    def _say(self, status: str, *lines: str) -> None:
        head = "\r\n".join([f"HTTP/1.1 {status}", *lines, "Content-Length: 0", "Connection: close"])
        self.wfile.write(f"{head}\r\n\r\n".encode())


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # Closed already.
        connection.shutdown(socket.SHUT_RDWR)

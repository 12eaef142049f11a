"""The simulated tenant on a socket: loopback, TLS or not, HTTP/1.1 with keep-alive.

It knows how bytes go over the wire and how a connection ends, well or badly; what is said is up
to the service behind it.
"""

from __future__ import annotations

import gzip
import socket
import socketserver
import ssl
import struct
import threading
import zlib
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from mde_simulator.http.journal import FRONT, Entry, Journal
from mde_simulator.http.messages import Request, Response

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 30.0
"""Seconds after which a client that is silent in the middle of a handshake or request is dropped."""
MAXIMUM_LINE, MAXIMUM_HEADERS, MAXIMUM_BODY = 65_536, 200, 1_048_576
"""The largest line, number of header lines and body that are read."""
CHUNK, BLOCK = 16_384, 262_144
FAST = 1
MORE = b" " * 65_535 + b"\n"
"""What an endless body goes on with: white space, so that the JSON begun stays good."""
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends a reset."""


class Service(Protocol):
    """Who answers."""

    @property
    def journal(self) -> Journal:
        """Where requests are written down."""

    def answer(self, request: Request, entry: Entry) -> Response:
        """What is said to a request."""


class BadRequestError(Exception):
    """What came is not HTTP; the connection ends."""


class Server(socketserver.ThreadingTCPServer):
    """Listens on loopback; a thread for each connection, none of which outlives `stop`."""

    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = False
    block_on_close = True

    def __init__(self, port: int, context: ssl.SSLContext | None, *, compress: bool = True, host: str = FRONT) -> None:
        self.context = context
        self.host = host
        self.compress = compress
        self.service: Service | None = None
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Connection)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="mde-simulator")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.socket.getsockname()[1])

    def start(self, service: Service) -> None:
        """Begin to answer."""
        self.service = service
        self._thread.start()

    def stop(self) -> None:
        """End every connection and thread."""
        self.stopping.set()
        if self._thread.ident is not None:
            self.shutdown()
            self._thread.join()
        with self._lock:
            for connection in self._open:
                _shut(connection)
        self.server_close()

    def process_request_thread(
        self,
        request: socket.socket | tuple[bytes, socket.socket],
        client_address: object,
    ) -> None:
        """Answer one connection. The handshake is made here, so that no client holds up others."""
        if not isinstance(request, socket.socket):
            return
        connection: socket.socket = request
        try:
            connection.settimeout(PATIENCE)
            if self.context is not None:
                connection = self.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        except OSError:
            request.close()
            return
        with self._lock:
            self._open.add(connection)
        try:
            if not self.stopping.is_set():
                if isinstance(connection, ssl.SSLSocket):
                    connection.do_handshake()
                self.finish_request(connection, client_address)
        except OSError:
            pass  # The client is gone, or does not trust the certificate: its own affair.
        finally:
            with self._lock:
                self._open.discard(connection)
            _shut(connection)
            connection.close()


def _shut(connection: socket.socket) -> None:
    """Wake the thread that reads from it."""
    with suppress(OSError):  # Closed already.
        # Not `SSLSocket.shutdown`: it takes the TLS state away from a thread that still reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class Connection(socketserver.StreamRequestHandler):
    """One client's connection, and its requests one after another."""

    server: Server
    connection: socket.socket
    # Without these two, answers of a few hundred bytes take 40 ms each.
    disable_nagle_algorithm = True
    wbufsize = -1

    def handle(self) -> None:
        """Answer until the client has enough."""
        while not self.server.stopping.is_set():
            try:
                request, close = self._read()
            except (BadRequestError, ValueError):
                self.wfile.write(BAD_REQUEST)
                return
            if request is None or not self._respond(request) or close:
                return

    def finish(self) -> None:
        """End the connection, also where it is gone already."""
        for stream in (self.wfile, self.rfile):
            with suppress(OSError):
                stream.close()

    def _read(self) -> tuple[Request | None, bool]:
        """The next request, and whether the connection is to end after it."""
        line = self._line()
        if not line:
            return None, True
        method, target, version = line.split(" ")
        headers = self._headers()
        length = int(headers.get("content-length", "0"))
        if length > MAXIMUM_BODY or "transfer-encoding" in headers:
            msg = "no such bodies here"
            raise BadRequestError(msg)
        if headers.get("expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        if not target.startswith("/"):
            msg = "only paths are asked for here"
            raise BadRequestError(msg)
        path, _, query = target.partition("?")
        request = Request(method, path, query, headers, self.rfile.read(length))
        self._chunked = version == "HTTP/1.1"
        wish = headers.get("connection", "").lower()
        return request, wish == "close" or not self._chunked

    def _line(self) -> str:
        line = self.rfile.readline(MAXIMUM_LINE)
        if line and not line.endswith(b"\n"):
            msg = "a line without an end"
            raise BadRequestError(msg)
        return line.decode("latin-1").rstrip("\r\n")

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for _ in range(MAXIMUM_HEADERS):
            line = self._line()
            if not line:
                return headers
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        msg = "too many header lines"
        raise BadRequestError(msg)

    def _respond(self, request: Request) -> bool:
        """Answer; False if the connection is at its end."""
        service = self.server.service
        if service is None:
            return False
        entry = Entry.of(request, self.server.host)
        service.journal.begin(entry)
        try:
            response = service.answer(request, entry)
            if response.delay and self.server.stopping.wait(response.delay):
                return False
            if response.ending == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                self.connection.close()
                return False
            self._send(request, response)
            return response.ending in ("whole", "drip")
        finally:
            service.journal.end(entry)

    def _send(self, request: Request, response: Response) -> None:
        body = self._encoded(request, response)
        head = self._head(response)
        if request.method == "HEAD":  # Its answer has no body, and so no end of one.
            self.wfile.write(head)
            self.wfile.flush()
            return
        if response.file is not None:
            if response.ending != "drip":
                self._send_file(head, response.file, response.ending)
                return
            body = response.file.read_bytes()
        if response.ending == "cut":
            body = body[: len(body) // 2]
        if response.ending in ("endless", "drip"):
            self._send_slowly(head, body, response)
            return
        parts = [head]
        for start in range(0, len(body), CHUNK) if self._chunked else ():
            chunk = body[start : start + CHUNK]
            parts += [b"%x\r\n" % len(chunk), chunk, b"\r\n"]
        if not self._chunked:
            parts.append(body)
        elif response.ending == "whole":
            parts.append(b"0\r\n\r\n")
        self.wfile.write(b"".join(parts))
        self.wfile.flush()

    def _head(self, response: Response) -> bytes:
        """Status and headers; from now on it is settled how the body is framed."""
        lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        if not self._chunked:
            lines.append("Connection: close")
        elif "Content-Length" in response.headers:
            self._chunked = False
        else:
            lines.append("Transfer-Encoding: chunked")
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"

    def _send_file(self, head: bytes, path: Path, ending: str) -> None:
        """A file, never all in memory; the half of it, if it is to be cut."""
        self.wfile.write(head)
        left = path.stat().st_size // (2 if ending == "cut" else 1)
        with path.open("rb") as file:
            while left and (block := file.read(min(left, BLOCK))):
                self.wfile.write(block)
                left -= len(block)
        self.wfile.flush()

    def _send_slowly(self, head: bytes, body: bytes, response: Response) -> None:
        """A body that takes its time, or never ends: till the client goes, or the server stops."""
        self.wfile.write(head)
        self.wfile.flush()
        size = 1 if response.ending == "drip" else CHUNK
        for start in range(0, len(body), size):
            if response.pace and self.server.stopping.wait(response.pace):
                return
            self._send_piece(body[start : start + size])
        while response.ending == "endless" and not self.server.stopping.is_set():
            self._send_piece(MORE)
        if self._chunked and response.ending == "drip":
            self._send_piece(b"")

    def _send_piece(self, piece: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
        self.wfile.flush()

    def _encoded(self, request: Request, response: Response) -> bytes:
        accepted = request.headers.get("accept-encoding", "").lower()
        settled = "Content-Encoding" in response.headers or "Content-Length" in response.headers
        if not self.server.compress or not response.body or settled:
            return response.body
        if "deflate" in accepted:
            response.headers["Content-Encoding"] = "deflate"
            return zlib.compress(response.body, FAST)
        if "gzip" in accepted:
            response.headers["Content-Encoding"] = "gzip"
            return gzip.compress(response.body, FAST, mtime=0)
        return response.body

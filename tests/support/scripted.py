"""A scripted server: a function plays the peer of each connection, over real sockets.

::

    def script(peer: Peer) -> None:
        peer.accept()                                   # the WebSocket handshake
        create = peer.expect("createBacktestSession")
        peer.created()
        peer.send({"method": "readyForContinue"})
        peer.until_gone()

    with ScriptedServer(script) as server:
        ...  # server.url, server.http_url

A failure inside a script (an ``AssertionError`` above all) is raised again when the ``with`` block ends.
A script that the client leaves behind (`Gone`) ends quietly. Several connections: one function for each, in
order (`ScriptedServer(first, second)`); the last serves all that follow.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def sid(n: int) -> str:
    """The n-th session id of protocol/reference_tests.md."""
    return f"backtest_{n:032x}"


def cid(n: int) -> str:
    """The n-th control session id."""
    return f"parallel_{n:032x}"


def frame(data: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """One unmasked frame, as a server writes it."""
    head = bytes([(0x80 if fin else 0) | opcode])
    if len(data) < 126:
        return head + bytes([len(data)]) + data
    if len(data) < 65536:
        return head + b"\x7e" + struct.pack(">H", len(data)) + data
    return head + b"\x7f" + struct.pack(">Q", len(data)) + data


class Gone(Exception):
    """The client closed the connection or lost it."""


class Peer:
    """One connection as the server sees it."""

    def __init__(self, sock: socket.socket, server: ScriptedServer, index: int) -> None:
        self.sock = sock
        self.server = server
        self.index = index
        self._buffer = b""
        self.request_line = ""
        self.headers: list[tuple[str, str]] = []
        self.close_frame: bytes | None = None
        self.pings = 0

    # --- bytes

    def _need(self, n: int) -> bytes:
        while len(self._buffer) < n:
            try:
                chunk = self.sock.recv(65536)
            except (ConnectionError, ssl.SSLError, OSError) as error:
                raise Gone(str(error)) from error
            if not chunk:
                raise Gone("end of stream")
            self._buffer += chunk
        out, self._buffer = self._buffer[:n], self._buffer[n:]
        return out

    def send_raw(self, data: bytes) -> None:
        """Bytes as they are."""
        try:
            self.sock.sendall(data)
        except (ConnectionError, ssl.SSLError, OSError) as error:
            raise Gone(str(error)) from error

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        raise Gone("reset by the script")

    # --- HTTP

    def read_head(self) -> str:
        """The request head: fills ``request_line`` and ``headers``."""
        while b"\r\n\r\n" not in self._buffer:
            self._buffer = self._need(len(self._buffer) + 1) + self._buffer
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin1").split("\r\n")
        self.request_line = lines[0]
        self.headers = [(k.lower(), v) for k, v in (line.split(": ", 1) for line in lines[1:])]
        return head.decode("latin1")

    def header(self, name: str) -> str | None:
        """The value of a request header, or ``None``."""
        return next((v for k, v in self.headers if k == name.lower()), None)

    def read_body(self) -> bytes:
        """The body of an HTTP request whose head was read."""
        return self._need(int(self.header("content-length") or 0))

    def respond(
        self,
        status: str,
        body: bytes | str = b"",
        content_type: str = "application/json",
        *headers: str,
    ) -> None:
        """An HTTP answer, for example ``respond("403 Forbidden", "no")``, and the end."""
        data = body.encode() if isinstance(body, str) else body
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(data)}",
            "Connection: close",
            *headers,
            "",
            "",
        ]
        self.send_raw("\r\n".join(lines).encode() + data)

    @property
    def path(self) -> str:
        """Path and query of the request."""
        return self.request_line.split(" ")[1]

    # --- WebSocket

    def accept(self) -> None:
        """Read the head and answer the WebSocket handshake."""
        self.read_head()
        self.upgrade()

    def upgrade(self) -> None:
        """Answer the WebSocket handshake whose head was read."""
        key = self.header("sec-websocket-key")
        assert key is not None, f"no WebSocket upgrade: {self.request_line}"
        accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        self.send_raw(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )

    def recv_frame(self) -> tuple[int, bytes]:
        """The next frame of any kind: opcode and unmasked payload."""
        first, second = self._need(2)
        n = second & 127
        if n == 126:
            (n,) = struct.unpack(">H", self._need(2))
        elif n == 127:
            (n,) = struct.unpack(">Q", self._need(8))
        assert second & 0x80, "a client must mask its frames"
        mask = self._need(4)
        data = self._need(n)
        if n:
            full = (mask * (n // 4 + 1))[:n]
            data = (int.from_bytes(data, "big") ^ int.from_bytes(full, "big")).to_bytes(n, "big")
        return first & 15, data

    def recv_text(self) -> str:
        """The next text message; answers pings; `Gone` on a close frame or the end."""
        while True:
            opcode, data = self.recv_frame()
            if opcode == CLOSE:
                self.close_frame = data
                raise Gone("close frame")
            if opcode == PING:
                self.pings += 1
                self.send_raw(frame(data, PONG))
            elif opcode == TEXT:
                return data.decode()

    def recv(self) -> Any:
        """The next text message as JSON."""
        return json.loads(self.recv_text())

    def expect(self, method: str) -> Any:
        """The next message, which must be of ``method``; gives its params."""
        message = self.recv()
        assert message["method"] == method, f"expected {method}, got {message}"
        return message.get("params")

    def send(self, *messages: Any) -> None:
        """Each message as one JSON text frame, all in one write."""
        self.send_raw(
            b"".join(frame(json.dumps(m, separators=(",", ":")).encode()) for m in messages)
        )

    def created(self, n: int = 1, rpc_endpoint: str = "http://rpc", **fields: Any) -> None:
        """``sessionCreated`` for `sid` ``n``."""
        self.send(
            {
                "method": "sessionCreated",
                "params": {"session_id": sid(n), "rpc_endpoint": rpc_endpoint, **fields},
            }
        )

    def send_close(self, code: int | None = 1000, reason: str = "") -> None:
        """A close frame; ``code=None`` sends one without payload."""
        payload = b"" if code is None else struct.pack(">H", code) + reason.encode()
        self.send_raw(frame(payload, CLOSE))

    def until_gone(self) -> list[Any]:
        """Read on until the client leaves; gives the messages that came."""
        messages: list[Any] = []
        try:
            while True:
                messages.append(self.recv())
        except Gone:
            return messages

    def serve_close(self) -> None:
        """Answer ``closeBacktestSession`` with ``success``, then wait for the client to leave."""
        self.expect("closeBacktestSession")
        self.send({"method": "success"})
        self.until_gone()


Script = Callable[[Peer], None]


class ScriptedServer:
    """Plays scripts on a loopback port, one thread for each connection."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self._scripts = scripts
        self._tls = tls
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._socks: list[socket.socket] = []
        self.peers: list[Peer] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(
            target=self._accept, name="scripted-acceptor", daemon=True
        )

    @property
    def url(self) -> str:
        """The control URL."""
        return f"{'wss' if self._tls else 'ws'}://{'localhost' if self._tls else '127.0.0.1'}:{self.port}/backtest"

    @property
    def http_url(self) -> str:
        """The HTTP origin."""
        return f"{'https' if self._tls else 'http'}://{'localhost' if self._tls else '127.0.0.1'}:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            index = len(self._socks)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socks.append(sock)
            thread = threading.Thread(
                target=self._play, args=(sock, index), name=f"scripted-{index}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _play(self, sock: socket.socket, index: int) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            peer = Peer(sock, self, index)
            self.peers.append(peer)
            self._scripts[min(index, len(self._scripts) - 1)](peer)
        except (Gone, ssl.SSLError, ConnectionError):
            pass
        except BaseException as failure:
            self._failures.append(failure)
        finally:
            sock.close()

    def __enter__(self) -> ScriptedServer:
        self._acceptor.start()
        return self

    def __exit__(self, kind: object, value: BaseException | None, trace: object) -> None:
        # shutdown wakes accept() on Linux; elsewhere close does
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(10)
        # scripts get a moment to finish by themselves, then lose their connection
        for thread in self._threads:
            thread.join(2)
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), f"{thread.name} did not end"
        if self._failures:
            raise self._failures[0] from value

"""Small TLS records both ways at once: a server in a process of its own, and clients that check all of it.

On one connection the server sends numbers while it receives the client's; whoever gets a wrong one, or gets
none, says so. A connection is broken when anything but the right numbers comes.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from tempfile import TemporaryDirectory

from websockets.asyncio.server import ServerConnection, serve

from backtest_sync.connection import Connection
from backtest_sync.frames import FrameDecoder
from backtest_sync.limits import Deadline
from backtest_sync.upgrade import Upgrade, format_frame
from tests.support.certificates import authority, client_tls

LIMIT = 30.0  # seconds that one connection may take
TEXT = 1


async def _talk(ws: ServerConnection) -> None:
    """``/count``: send the numbers below count, and expect them."""
    assert ws.request is not None
    count = int(ws.request.path.strip("/"))

    async def send() -> None:
        for n in range(count):
            await ws.send(str(n))
            if n % 16 == 0:
                await asyncio.sleep(0)

    async def expect() -> None:
        for n in range(count):
            assert await ws.recv() == str(n)

    await asyncio.gather(send(), expect())
    await ws.send("done")
    await ws.wait_closed()


def _serve(pipe: Pipe, certificate: str) -> None:
    logging.disable()  # a client that breaks its connection tells it better

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        async with serve(_talk, "127.0.0.1", 0, ssl=context, compression=None) as server:
            pipe.send(server.sockets[0].getsockname()[1])
            # the other end of the pipe is closed when the test is done
            await asyncio.get_running_loop().run_in_executor(None, pipe.poll, None)

    asyncio.run(main())


@contextmanager
def duplex_server() -> Iterator[str]:
    """The URL of a server, without the count at its end."""
    with TemporaryDirectory() as folder:
        certificate = Path(folder) / "server.pem"
        authority().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            certificate
        )
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, str(certificate)), daemon=True)
        process.start()
        theirs.close()
        try:
            assert ours.poll(LIMIT), "the server did not start"
            yield f"wss://127.0.0.1:{ours.recv()}"
        finally:
            ours.close()
            process.join(LIMIT)
            process.close()


def check_duplex(url: str, count: int, tls: ssl.SSLContext | None = None) -> str | None:
    """One connection: a thread sends while this one receives. What went wrong, or ``None``."""
    connection = Connection.open(
        f"{url}/{count}", name="duplex", headers={}, ssl_context=tls or client_tls()
    )
    failures: list[str] = []

    def send() -> None:
        try:
            for n in range(count):
                connection.send(str(n), Deadline(LIMIT))
        except Exception as error:
            failures.append(f"send: {error!r}")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        wanted = [b"%d" % n for n in range(count)] + [b"done"]
        got: list[bytes] = []
        while len(got) < len(wanted) and (chunk := connection.receive(Deadline(LIMIT))):
            got += chunk
        if got != wanted:
            failures.append(f"received {len(got)} of {len(wanted)}, then {connection.end}")
    finally:
        connection.close()
        sender.join()
    return "; ".join(failures) or None


def check_naively(url: str, count: int, tls: ssl.SSLContext | None = None) -> str | None:
    """The same as a plain client does it: one thread in ``recv``, one in ``sendall``, on one TLS socket."""
    sock = Upgrade(f"{url}/{count}", {}, LIMIT, tls or client_tls()).run()
    sock.settimeout(LIMIT)
    failures: list[str] = []

    def send() -> None:
        try:
            for n in range(count):
                sock.sendall(format_frame(TEXT, b"%d" % n))
        except (OSError, ValueError) as error:
            failures.append(f"send: {error!r}")

    sender = threading.Thread(target=send)
    sender.start()
    decoder = FrameDecoder()
    wanted = [b"%d" % n for n in range(count)] + [b"done"]
    got: list[bytes] = []
    try:
        while len(got) < len(wanted) and (chunk := sock.recv(65536)):
            got += decoder.feed(chunk)[0]
    except (OSError, ValueError) as error:
        failures.append(f"recv: {error!r}")
    if got != wanted:
        failures.append(f"received {len(got)} of {len(wanted)}")
    socket.socket.shutdown(sock, socket.SHUT_RDWR)
    sender.join()
    sock.close()
    return "; ".join(failures) or None

"""The opening handshake: what can go wrong with it, how that is told, and that it ends in time."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import traceback
from typing import Any

import pytest
import websocket

from backtest_sync.connection import Connection
from backtest_sync.errors import ConnectError, InvalidParamsError, RequestTimeoutError
from backtest_sync.origins import shown_url
from backtest_sync.upgrade import default_tls_context, format_frame
from tests.support.certificates import client_tls, server_tls
from tests.support.connections import SOON, connect, in_thread, outcome, quiet, receive, until
from tests.support.scripted import Gone, Peer, Script, ScriptedServer, frame

KEY = "sim-key-of-the-test"


def refused(script: Script, **options: Any) -> Exception:
    """How opening fails against ``script``; the key is nowhere in it."""
    options = {"headers": {"X-API-Key": KEY}, **options}
    with ScriptedServer(script) as server, pytest.raises(Exception) as caught:  # noqa: PT011
        connect(server, **options)
    error = caught.value
    assert KEY not in told(error)
    return error


def told(error: BaseException | None) -> str:
    """All that an error and its causes say."""
    text = ""
    while error is not None:
        text += "".join(traceback.format_exception_only(error)) + repr(error.__dict__)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text


def answer(status: str, body: str = "", *headers: str) -> Script:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.respond(status, body, "text/plain", *headers)

    return script


# --- refusals


@pytest.mark.parametrize(
    ("status", "key", "words"),
    [
        ("401 Unauthorized", KEY, "The API key is the likely reason: set api_key or SIMULATOR_API"),
        ("403 Forbidden", KEY, "The API key is the likely reason"),
        ("403 Forbidden", "", "The API key is missing: set api_key or SIMULATOR_API_KEY"),
        ("404 Not Found", KEY, "the server answered HTTP 404 Not Found: because"),
        ("429 Too Many Requests", KEY, "HTTP 429 Too Many Requests: because"),
        ("503 Service Unavailable", KEY, "HTTP 503 Service Unavailable: because"),
        ("200 OK", KEY, "the server answered HTTP 200 OK: because"),
        ("499 Odd", KEY, "the server answered HTTP 499: because"),
    ],
)
def test_a_refusal_says_the_status(status: str, key: str, words: str) -> None:
    error = refused(answer(status, "because"), headers={"X-API-Key": key})
    assert isinstance(error, ConnectError)
    assert error.status == int(status[:3])
    assert words in str(error)
    assert error.url in str(error)


def test_where_no_key_is_sent_none_is_blamed() -> None:
    error = refused(answer("403 Forbidden"), headers={})
    assert "API key" not in str(error)


def test_what_the_server_sends_back_is_cut_and_without_the_key() -> None:
    error = refused(answer("400 Bad Request", f"bad key {KEY}!\n" + "x" * 5000))
    assert "bad key ***! xxx" in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_redirects_are_not_followed(status: str) -> None:
    elsewhere = threading.Event()

    def other(peer: Peer) -> None:
        elsewhere.set()

    with ScriptedServer(other) as target:
        error = refused(answer(status, "", f"Location: {target.url}"))
    assert isinstance(error, ConnectError)
    assert error.status == int(status[:3])
    assert "Redirects are not followed" in str(error)
    assert not elsewhere.is_set()


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: bm90IHRoZSByaWdodCBvbmU=\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"\xff\xfe\r\n\r\n",
        b"HTTP/1.1 101 x\r\nno colon\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_an_answer_that_is_no_handshake(head: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send_raw(head)

    error = refused(script)
    assert isinstance(error, ConnectError)
    assert "no WebSocket handshake" in str(error)


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 101 Switch", b"HTTP/1.1 101 x\r\nUpgrade: w"])
def test_the_server_hangs_up(part: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send_raw(part)

    error = refused(script)
    assert isinstance(error, ConnectError)
    assert error.status is None
    assert "closed the connection during the handshake" in str(error)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectError, match="connection refused; is the server running") as caught:
        Connection.open(f"ws://127.0.0.1:{port}/backtest", name="t", headers={})
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConnectError, match=r"host name 'sim\.example' could not be resolved: Name"):
        Connection.open("ws://sim.example/backtest", name="t", headers={})


# --- time


def test_a_server_that_says_nothing() -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        release.wait(SOON)

    with ScriptedServer(script) as server:
        with pytest.raises(RequestTimeoutError, match=r"timeout while connecting after 0\.05 s"):
            connect(server, connect_timeout=0.05)
        until(lambda: not [t for t in threading.enumerate() if t.name == "test reader"])
        release.set()


def test_a_server_that_trickles_does_not_extend_the_limit() -> None:
    gone = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        try:
            while True:
                peer.send_raw(b"H")
                gone.wait(0.01)
        except Gone:
            gone.set()
            raise

    with ScriptedServer(script) as server:
        with pytest.raises(RequestTimeoutError, match="connecting"):
            connect(server, connect_timeout=0.2)
        assert gone.wait(SOON), "the attempt was given up, and goes on"


def test_a_name_that_resolves_too_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    real = socket.getaddrinfo

    def slow(*args: Any, **kwargs: Any) -> Any:
        release.wait(SOON)
        return real(*args, **kwargs)

    with ScriptedServer(quiet) as server:
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        with pytest.raises(RequestTimeoutError, match="connecting"):
            connect(server, connect_timeout=0.05)
        release.set()
        # the attempt comes to nothing by itself: a socket that nobody waits for is closed
        until(lambda: not [t for t in threading.enumerate() if t.name == "test reader"])


def test_a_tls_handshake_that_hangs() -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        release.wait(SOON)

    with ScriptedServer(script) as server:
        url = server.url.replace("ws://", "wss://")
        with pytest.raises(RequestTimeoutError, match="connecting"):
            Connection.open(url, name="t", headers={}, connect_timeout=0.1)
        release.set()


# --- TLS


def test_a_certificate_of_an_unknown_authority() -> None:
    error = refused_by_tls(server_tls(), None)
    assert "certificate is not trusted" in str(error)
    assert "ssl_context" in str(error)


def test_a_certificate_of_another_host() -> None:
    error = refused_by_tls(server_tls("other.example"), client_tls())
    assert "Hostname mismatch" in str(error)


def test_old_tls_is_refused() -> None:
    server = server_tls()
    server.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1 "):
        server.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        server.maximum_version = ssl.TLSVersion.TLSv1_1
    assert default_tls_context().minimum_version == ssl.TLSVersion.TLSv1_2
    assert "TLS handshake failed" in str(refused_by_tls(server, client_tls()))


def test_a_server_without_tls() -> None:
    def script(peer: Peer) -> None:
        peer._need(1)
        peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with ScriptedServer(script) as server:
        url = server.url.replace("ws://", "wss://")
        with pytest.raises(ConnectError, match="TLS handshake failed"):
            Connection.open(url, name="t", headers={})


def refused_by_tls(server_context: ssl.SSLContext, client: ssl.SSLContext | None) -> ConnectError:
    with (
        ScriptedServer(quiet, tls=server_context) as server,
        pytest.raises(ConnectError) as caught,
    ):
        connect(server, ssl_context=client)
    assert caught.value.status is None
    return caught.value


# --- proxies


def proxy(peer: Peer) -> None:
    """A proxy that is the server itself behind its CONNECT."""
    head = peer.read_head()
    assert head.startswith("CONNECT sim.example:80 HTTP/1.1\r\n"), head
    peer.authorization = peer.header("proxy-authorization")  # type: ignore[attr-defined]
    peer.send_raw(b"HTTP/1.1 200 Connection established\r\n\r\n")
    peer.accept()
    peer.send_raw(frame(peer.request_line.encode()))
    peer.until_gone()


def test_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(proxy) as server:
        monkeypatch.setenv("http_proxy", server.http_url.replace("://", "://user:pa%20ss@"))
        connection = Connection.open("ws://sim.example/backtest", name="t", headers={})
        assert receive(connection, 1) == [b"GET /backtest HTTP/1.1"]
        connection.close()
    assert server.peers[0].authorization == "Basic dXNlcjpwYSBzcw=="  # type: ignore[attr-defined]


def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(answer("407 Proxy Authentication Required")) as server:
        monkeypatch.setenv("https_proxy", server.http_url.replace("://", "://user:word@"))
        with pytest.raises(
            ConnectError, match=r"the proxy refused: .*407 \(https_proxy is set: it may"
        ) as caught:
            Connection.open("wss://sim.example/backtest", name="t", headers={})
    assert "user" not in told(caught.value)


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", f"http://user:word@127.0.0.1:{port}")
    with pytest.raises(ConnectError, match=r"refused.* \(http_proxy is set: it may be") as caught:
        Connection.open("ws://sim.example/backtest", name="t", headers={})
    assert "word" not in told(caught.value)


def test_no_proxy_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(peer: Peer) -> None:
        raise AssertionError("the proxy was asked")

    with ScriptedServer(never) as other, ScriptedServer(quiet) as server:
        monkeypatch.setenv("http_proxy", other.http_url)
        connect(server).close()


# --- what is refused before anything is sent


@pytest.mark.parametrize(
    ("value", "where"), [("a\r\nX-Other: b", 2), ("key\n", 4), ("\x00", 1), ("schlüssel", 5)]
)
def test_a_key_that_can_not_be_a_header(value: str, where: int) -> None:
    with pytest.raises(InvalidParamsError, match=r"^invalid API key header value: ") as caught:
        Connection.open("ws://127.0.0.1:1/", name="t", headers={"X-API-Key": value})
    assert f"character {where} of {len(value)}" in str(caught.value)
    assert value not in str(caught.value)


def test_other_headers_are_checked_too() -> None:
    with pytest.raises(InvalidParamsError, match="invalid X-Trace header value"):
        Connection.open("ws://127.0.0.1:1/", name="t", headers={"X-Trace": "a\nb"})
    with pytest.raises(InvalidParamsError, match="invalid header name: 'X Trace'"):
        Connection.open("ws://127.0.0.1:1/", name="t", headers={"X Trace": "a"})


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/backtest",
        "ws://",
        "ws:///backtest",
        "ws://host:port/",
        "ws://host:99999/",
        "ws://ho st/",
        "ws://host/a\r\nX: y",
        "ws://[::1/",
        "host",
        "",
    ],
)
def test_a_url_that_can_not_be_used(url: str) -> None:
    with pytest.raises(InvalidParamsError, match="is not a usable endpoint: "):
        Connection.open(url, name="t", headers={})


# --- secrets


def test_the_url_is_shown_without_its_secrets() -> None:
    assert shown_url("wss://me:secret@host:1/p?token=secret#x") == "wss://host:1/p"
    for url in ("http://me:secret@host/", "ws://me:secret@host:x/", "ws://me:secret@/"):
        with pytest.raises(InvalidParamsError) as caught:
            Connection.open(url, name="t", headers={})
        assert "secret" not in str(caught.value)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectError) as connect_error:
        Connection.open(f"ws://me:secret@127.0.0.1:{port}/?t=secret", name="t", headers={})
    assert "secret" not in told(connect_error.value)
    assert connect_error.value.url == f"ws://127.0.0.1:{port}/"


def test_nothing_of_the_key_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with ScriptedServer(quiet) as server:
        connect(server, headers={"X-API-Key": KEY}).close()
    refused(answer("403 Forbidden"))
    assert KEY not in caplog.text


# --- being interrupted


def test_an_opening_that_was_given_up_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes just after the limit: what was opened is closed again, with a close frame."""
    late = threading.Event()

    def script(peer: Peer) -> None:
        late.wait(SOON)
        peer.accept()
        peer.until_gone()

    with ScriptedServer(script) as server:
        attempt = in_thread(lambda: connect(server, connect_timeout=0.05))
        assert isinstance(outcome(*attempt), RequestTimeoutError)
        late.set()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000])
@pytest.mark.parametrize("opcode", [0x1, 0x8, 0x9, 0xA])
def test_a_frame_is_the_librarys_frame(
    size: int, opcode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", lambda count: b"\x01\x80\xff\x7e"[:count])
    payload = bytes(n % 251 for n in range(size))
    assert format_frame(opcode, payload) == websocket.ABNF.create_frame(payload, opcode).format()


def test_each_frame_has_a_mask_of_its_own() -> None:
    assert len({format_frame(0x1, b"the same")[2:6] for _ in range(16)}) > 1

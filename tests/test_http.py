"""HTTP on real sockets: what is sent, what comes back, and every way it can fail."""

from __future__ import annotations

import gzip
import pickle
import socket
import ssl
import threading
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
import urllib3

from backtest_sync import http, replies
from backtest_sync.errors import (
    HttpError,
    HttpStatusError,
    InvalidParamsError,
    RequestTimeoutError,
)
from backtest_sync.headers import API_KEY_HEADER, USER_AGENT, check_api_key
from backtest_sync.http import HttpClient
from backtest_sync.origins import check_endpoint, shown_url
from backtest_sync.replies import Repeat
from tests.support.scripted import Peer, Script, ScriptedServer


def answering(status: str = "200 OK", body: bytes | str = "{}", *headers: str) -> Script:
    """One request, one answer."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.read_body()
        peer.respond(status, body, "application/json", *headers)

    return script


def raw(data: bytes) -> Script:
    """One request, then these bytes and the end."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.read_body()
        peer.send_raw(data)

    return script


def resetting(peer: Peer) -> None:
    """Take the request, then reset the connection."""
    peer.read_head()
    peer.read_body()
    peer.reset()


def silent(peer: Peer) -> None:
    """Take the request and answer nothing."""
    peer.read_head()
    peer.until_gone()


def chunked(*parts: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + body


# --- what is sent, what comes back


def test_a_reply_has_status_body_and_json() -> None:
    with ScriptedServer(answering("201 Created", '{"a":[1]}')) as server, HttpClient() as client:
        reply = client.request("GET", f"{server.http_url}/x?secret=1")
    assert (reply.status, reply.phrase, reply.body, reply.json()) == (
        201, "Created", b'{"a":[1]}', {"a": [1]},
    )  # fmt: skip
    assert reply.url == f"{server.http_url}/x"
    assert "{" not in repr(reply)


def test_the_client_names_itself_and_sends_its_headers() -> None:
    with ScriptedServer(answering()) as server:
        with HttpClient(headers={"X-Team": "a", "user-agent": "other"}) as client:
            client.request("GET", server.http_url, headers={API_KEY_HEADER: "k"})
    peer = server.peers[0]
    assert [v for k, v in peer.headers if k == "user-agent"] == [USER_AGENT]
    assert (peer.header("x-team"), peer.header("x-api-key")) == ("a", "k")
    assert peer.header("content-type") is None


def test_query_and_body_go_out_in_their_order() -> None:
    bodies = []

    def script(peer: Peer) -> None:
        peer.read_head()
        bodies.append(peer.read_body())
        peer.respond("200 OK", "{}")

    with ScriptedServer(script) as server, HttpClient() as client:
        client.request(
            "POST",
            f"{server.http_url}/p",
            params=[("b", "1:2"), ("a", "x y&/?")],
            json={"z": 1, "a": None},
        )
    assert server.peers[0].path == "/p?b=1%3A2&a=x+y%26%2F%3F"
    assert bodies == [b'{"z":1,"a":null}']
    assert server.peers[0].header("content-type") == "application/json"


def test_connections_are_kept_and_cookies_are_not() -> None:
    seen = []

    def script(peer: Peer) -> None:
        for _ in range(3):
            peer.read_head()
            seen.append(peer.header("cookie"))
            peer.send_raw(
                b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 2\r\n\r\n{}"
            )

    with ScriptedServer(script) as server, HttpClient() as client:
        for _ in range(3):
            client.request("GET", server.http_url)
    assert len(server.peers) == 1
    assert seen == [None] * 3


def test_after_a_fork_connections_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(peer: Peer) -> None:
        while True:
            peer.read_head()
            peer.send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with ScriptedServer(script) as server, HttpClient() as client:
        client.request("GET", server.http_url)
        monkeypatch.setattr("backtest_sync.http.os.getpid", lambda: -1)
        client.request("GET", server.http_url)
    assert len(server.peers) == 2


@pytest.mark.parametrize(
    "answer",
    [
        chunked(b"ab", b"c" * 100_000, b"d"),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"ab" + b"c" * 100_000 + b"d",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
        + gzip.compress(b"ab" + b"c" * 100_000 + b"d"),
    ],
    ids=["chunked", "until the end", "compressed"],
)
def test_bodies_of_every_framing_are_read_whole(answer: bytes) -> None:
    with ScriptedServer(raw(answer)) as server, HttpClient() as client:
        assert client.request("GET", server.http_url).body == b"ab" + b"c" * 100_000 + b"d"


def test_an_empty_body_is_no_error_until_json_is_wanted() -> None:
    with ScriptedServer(answering(body="")) as server, HttpClient() as client:
        reply = client.request("GET", server.http_url)
    assert reply.body == b""
    with pytest.raises(HttpError, match=r"failed: the body is no JSON"):
        reply.json()


def test_many_threads_share_a_client() -> None:
    failures: list[BaseException] = []

    def script(peer: Peer) -> None:
        while True:
            peer.read_head()
            body = f'"{peer.path}"'.encode()
            peer.send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with ScriptedServer(script) as server, HttpClient() as client:

        def work(n: int) -> None:
            try:
                for i in range(20):
                    path = f"/{n}/{i}"
                    assert client.request("GET", server.http_url + path).json() == path
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(server.peers) <= 8


# --- statuses and bad bodies


def test_an_error_status_keeps_the_body() -> None:
    body = "no such thing " * 200
    with ScriptedServer(answering("404 Not Found", body)) as server, HttpClient() as client:
        reply = client.request("GET", f"{server.http_url}/x")
    with pytest.raises(HttpStatusError) as caught:
        reply.raise_for_status()
    error = caught.value
    assert str(error).startswith(f"HTTP 404 Not Found from {server.http_url}/x: no such thing")
    assert len(str(error)) < 1300
    assert (error.status, error.body, error.url) == (404, body, f"{server.http_url}/x")
    assert pickle.loads(pickle.dumps(error)).body == body


def test_an_error_body_is_cut_where_it_is_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_ERROR_BODY_BYTES", 1000)
    with ScriptedServer(answering("500 Oops", "x" * 200_000)) as server, HttpClient() as client:
        assert len(client.request("GET", server.http_url).body) == 1000


@pytest.mark.parametrize(
    "answer",
    [
        chunked(b"x" * 2000),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(10_000_000)),
    ],
    ids=["plain", "compressed"],
)
def test_a_body_over_the_limit_is_refused(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 1500)
    with ScriptedServer(raw(answer)) as server, HttpClient() as client:
        with pytest.raises(
            HttpError, match=r"larger than the limit of 1500 bytes \(MAX_BODY_BYTES\)"
        ):
            client.request("GET", server.http_url)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nno gzip at all", "decompress|header"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "IncompleteRead|zz"),
        (b"garbage\r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000, "header line"),
        (b"", "closed connection without response"),
    ],
    ids=["cut", "bad gzip", "bad chunk", "no HTTP", "endless header", "nothing"],
)
def test_a_broken_answer_is_an_http_error(answer: bytes, reason: str) -> None:
    with ScriptedServer(raw(answer)) as server, HttpClient() as client:
        with pytest.raises(HttpError, match=reason) as caught:
            client.request("GET", f"{server.http_url}/x")
    assert str(caught.value).startswith(f"HTTP request to {server.http_url}/x failed: ")
    assert caught.value.__cause__ is not None


def test_a_body_that_json_lacks_is_refused_before_anything_is_sent() -> None:
    with HttpClient() as client, pytest.raises(InvalidParamsError, match="written as JSON"):
        client.request("POST", "http://127.0.0.1:1/", json={"a": object()})


# --- redirects


def redirecting(location: str, status: str = "302 Found") -> Script:
    return answering(status, "x" * 100, f"Location: {location}")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 T", "308 P"])
def test_a_get_follows_redirects_of_its_origin_with_its_key(status: str) -> None:
    with (
        ScriptedServer(redirecting("/b?c=1", status), answering(body="1")) as server,
        HttpClient() as client,
    ):
        reply = client.request(
            "GET", f"{server.http_url}/a", params=[("q", "1")], headers={API_KEY_HEADER: "k"}
        )
    assert reply.json() == 1
    assert [peer.path for peer in server.peers] == ["/a?q=1", "/b?c=1"]
    assert server.peers[1].header("x-api-key") == "k"


def test_a_post_is_repeated_only_where_the_redirect_keeps_the_method() -> None:
    bodies = []

    def script(peer: Peer) -> None:
        peer.read_head()
        bodies.append((peer.request_line.split()[0], peer.read_body()))
        peer.respond("200 OK", "1")

    with (
        ScriptedServer(redirecting("/b", "307 Temporary"), script) as server,
        HttpClient() as client,
    ):
        assert client.request("POST", server.http_url, json=[1]).json() == 1
    assert bodies == [("POST", b"[1]")]
    with ScriptedServer(redirecting("/b", "302 Found")) as server, HttpClient() as client:
        assert client.request("POST", server.http_url, json=[1]).status == 302
    assert len(server.peers) == 1


def test_a_redirect_to_another_origin_is_refused() -> None:
    with ScriptedServer(answering()) as other:
        target = f"{other.http_url}/steal?token=t"
        with ScriptedServer(redirecting(target)) as server, HttpClient() as client:
            with pytest.raises(HttpError, match="redirects to another origin") as caught:
                client.request("GET", server.http_url, headers={API_KEY_HEADER: "k"})
    assert f"{other.http_url}/steal" in str(caught.value)
    assert "token" not in str(caught.value)
    assert other.peers == []


@pytest.mark.parametrize(
    "location", ["https://127.0.0.1/", "http://[::1", "//h:99999/", "ftp://x/"]
)
def test_odd_redirects_are_refused(location: str) -> None:
    with ScriptedServer(redirecting(location)) as server, HttpClient() as client:
        with pytest.raises(HttpError, match="another origin"):
            client.request("GET", server.http_url)


def test_redirects_in_a_circle_end() -> None:
    with ScriptedServer(redirecting("/again")) as server, HttpClient() as client:
        with pytest.raises(HttpError, match="more than 5 redirects"):
            client.request("GET", server.http_url)
    assert len(server.peers) == 6


# --- repeating


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "RETRY_PAUSE", 0.001)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    "failing",
    [answering("503 Service Unavailable"), answering("502 Bad Gateway"), answering("504 Gateway Timeout"),
     answering("429 Too Many Requests", "", "Retry-After: 0"), resetting, raw(b""),
     raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1")],
    ids=["503", "502", "504", "429", "reset", "closed", "cut"],
)  # fmt: skip
def test_what_is_safe_to_repeat_is_repeated(failing: Script) -> None:
    with ScriptedServer(failing, failing, answering(body="1")) as server, HttpClient() as client:
        reply = client.request("GET", server.http_url, retry_for=30, repeat=Repeat.SAFE)
    assert reply.json() == 1
    assert len(server.peers) == 3


@pytest.mark.parametrize("failing", [answering("503 Service Unavailable"), resetting])
def test_what_was_sent_is_not_repeated_unless_it_is_safe(failing: Script) -> None:
    with ScriptedServer(failing) as server, HttpClient() as client:
        with suppress(HttpError):
            client.request("POST", server.http_url, json=1, retry_for=30)
    assert len(server.peers) == 1


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("failing", [answering("400 Bad Request"), answering("500 Oops")])
def test_a_plain_refusal_is_not_repeated(failing: Script) -> None:
    with ScriptedServer(failing) as server, HttpClient() as client:
        client.request("GET", server.http_url, retry_for=30, repeat=Repeat.SAFE)
    assert len(server.peers) == 1


def test_the_last_outcome_stands_when_the_time_for_tries_is_over() -> None:
    with (
        ScriptedServer(answering("503 Service Unavailable", "busy")) as server,
        HttpClient() as client,
    ):
        reply = client.request("GET", server.http_url, retry_for=0.3, repeat=Repeat.SAFE)
    assert (reply.status, reply.text) == (503, "busy")
    assert 2 <= len(server.peers) <= 8


def test_a_server_that_asks_for_a_longer_wait_than_there_is_gets_one_request() -> None:
    busy = answering("503 Service Unavailable", "", "Retry-After: 100")
    with ScriptedServer(busy) as server, HttpClient() as client:
        client.request("GET", server.http_url, retry_for=30, repeat=Repeat.SAFE)
    assert len(server.peers) == 1


def test_a_server_that_is_not_up_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ScriptedServer(answering(body="1"))
    server._listener.close()  # nobody listens there now

    def start(client: HttpClient, _: float) -> bool:
        server._listener = socket.create_server(("127.0.0.1", server.port))
        server.__enter__()
        return True

    monkeypatch.setattr(HttpClient, "pause", start)
    with HttpClient() as client:
        # even what must not run twice: it was never sent
        assert client.request("POST", server.http_url, json=1, retry_for=30).json() == 1
    server.__exit__(None, None, None)


def test_nobody_there_is_an_http_error_with_its_cause() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a"
    query = "?b=c"
    with HttpClient() as client, pytest.raises(HttpError, match="Connection refused") as caught:
        client.request("GET", url + query)
    # urllib3 before 2 puts words of its own around the system's
    assert str(caught.value).startswith(f"HTTP request to {url} failed: ")
    assert "b=c" not in everything(caught.value)
    assert caught.value.__cause__ is not None


def test_closing_ends_a_wait_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def script(peer: Peer) -> None:
        answering("503 Service Unavailable")(peer)
        answered.set()

    monkeypatch.setattr(replies, "RETRY_PAUSE", 1000.0)
    monkeypatch.setattr(replies, "MAX_RETRY_PAUSE", 1000.0)
    with ScriptedServer(script) as server:
        client = HttpClient()
        closer = threading.Thread(target=lambda: (answered.wait(10), client.close()))
        closer.start()
        reply = client.request("GET", server.http_url, retry_for=None, repeat=Repeat.SAFE)
        closer.join()
    assert reply.status == 503
    with pytest.raises(HttpError, match="the client is closed"):
        client.request("GET", server.http_url)


# --- limits


def test_a_server_that_never_answers_hits_the_timeout() -> None:
    with ScriptedServer(silent) as server, HttpClient(timeout=0.15) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            client.request("GET", f"{server.http_url}/x?k=1", retry_for=None, repeat=Repeat.SAFE)
    assert str(caught.value) == f"timeout while requesting GET {server.http_url}/x after 0.15 s"
    assert isinstance(caught.value, TimeoutError)
    assert len(server.peers) == 1


@pytest.mark.skipif(
    not hasattr(urllib3.HTTPResponse, "read1"),
    reason="urllib3 before 2.2 gives no part of a body before 64 KiB of it are there",
)
def test_a_body_that_trickles_hits_the_timeout() -> None:
    over = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not over.wait(0.02):
            peer.send_raw(b"x")

    with ScriptedServer(script) as server, HttpClient() as client:
        with pytest.raises(RequestTimeoutError, match=r"after 0\.2 s"):
            client.request("GET", server.http_url, timeout=0.2)
        over.set()


# --- credentials


def everything(error: BaseException) -> str:
    """All that a traceback, a log or a pickle of an error shows."""
    shown = "".join(traceback.format_exception(error))
    return shown + repr(error) + repr(pickle.dumps(error)) + repr(error.__context__)


def test_a_user_in_the_url_is_sent_and_never_shown() -> None:
    with ScriptedServer(answering("401 Unauthorized"), resetting) as server, HttpClient() as client:
        url = server.http_url.replace("//", "//bob:hunter2@") + "/?api-key=topsecret"
        with pytest.raises(HttpStatusError) as refused:
            client.request("GET", url).raise_for_status()
        with pytest.raises(HttpError) as broken:
            client.request("GET", url)
    assert server.peers[0].header("authorization") == "Basic Ym9iOmh1bnRlcjI="
    for error in (refused.value, broken.value):
        assert "hunter2" not in everything(error)
        assert "topsecret" not in everything(error)


def test_netrc_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\ndefault login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with ScriptedServer(answering()) as server, HttpClient() as client:
        client.request("GET", server.http_url)
    assert server.peers[0].header("authorization") is None


def test_a_server_that_repeats_the_key_does_not_get_it_into_errors() -> None:
    key = "sk-0123456789"
    refusing = answering("401 Unauthorized", f"unknown key {key}")
    with ScriptedServer(refusing) as server, HttpClient() as client:
        with pytest.raises(HttpStatusError, match=r"unknown key \[API key\]") as caught:
            client.request("GET", server.http_url, headers={API_KEY_HEADER: key}).raise_for_status()
    assert key not in everything(caught.value)


def test_a_header_that_cannot_be_sent_does_not_show_its_value() -> None:
    with HttpClient(headers={"X-Token": "secret\nvalue"}) as client:
        with pytest.raises(HttpError, match="can't stand in a header") as caught:
            client.request("GET", "http://127.0.0.1:1/")
    assert "secret" not in everything(caught.value)


@pytest.mark.parametrize("key", ["", "k", "a-key_with~every!char"])
def test_usable_keys(key: str) -> None:
    assert check_api_key(key) == key


@pytest.mark.parametrize(
    "key", ["secret\n", " secret", "secret\r\nX: y", "secretü", "secret\x00", b"secret"]
)
def test_keys_that_no_header_can_carry(key: object) -> None:
    with pytest.raises(InvalidParamsError, match=r"API key header value|api_key") as caught:
        check_api_key(key)  # type: ignore[arg-type]
    assert "secret" not in everything(caught.value)


# --- ways there: proxies, TLS, URLs


def test_the_environments_proxy_is_used_but_not_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        ScriptedServer(answering(body="1")) as proxy,
        ScriptedServer(answering(body="2")) as server,
    ):
        monkeypatch.setenv("http_proxy", proxy.http_url.replace("//", "//u:pw@"))
        with HttpClient() as client:
            assert client.request("GET", "http://simulator.invalid/x").json() == 1
            assert client.request("GET", server.http_url).json() == 2
    assert proxy.peers[0].path == "http://simulator.invalid/x"
    assert proxy.peers[0].header("proxy-authorization") == "Basic dTpwdw=="


def test_a_proxy_that_refuses_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        ScriptedServer(answering("407 Proxy Authentication Required")) as proxy,
        HttpClient() as client,
    ):
        monkeypatch.setenv("https_proxy", proxy.http_url.replace("//", "//u:hunter2@"))
        with pytest.raises(HttpError, match=r"the proxy: .*407") as caught:
            client.request("GET", "https://simulator.invalid/x", retry_for=30, repeat=Repeat.SAFE)
    assert "hunter2" not in everything(caught.value)
    assert len(proxy.peers) == 1


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def served_by(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def test_tls_trusts_the_given_context_alone(authority: trustme.CA) -> None:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    with ScriptedServer(answering(body="1"), tls=served_by(authority)) as server:
        with HttpClient(ssl_context=trusting) as client:
            assert client.request("GET", server.http_url).json() == 1
        with HttpClient() as client, pytest.raises(HttpError, match="CERTIFICATE_VERIFY_FAILED"):
            client.request("GET", server.http_url, retry_for=30, repeat=Repeat.SAFE)
    assert len(trusting.get_ca_certs()) == 1, "the roots of requests were added"


def test_a_context_that_verifies_nothing_is_obeyed(authority: trustme.CA) -> None:
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    with ScriptedServer(answering(body="1"), tls=served_by(authority)) as server:
        with HttpClient(ssl_context=careless) as client, pytest.warns(Warning, match="Unverified"):
            assert client.request("GET", server.http_url).json() == 1


def test_the_wrong_host_is_refused(authority: trustme.CA) -> None:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    with ScriptedServer(answering(), tls=served_by(authority)) as server:
        with (
            HttpClient(ssl_context=trusting) as client,
            pytest.raises(HttpError, match=r"mismatch|check_hostname"),
        ):
            client.request("GET", server.http_url.replace("localhost", "127.0.0.1"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:80",
        "ws://h/",
        "/backtest/x",
        "http://",
        "http:///x",
        "http://h:99999/",
        "http://[::1",
        7,
    ],
)
def test_endpoints_that_are_none(url: object) -> None:
    with pytest.raises(InvalidParamsError, match=r"usable endpoint|expected a URL"):
        check_endpoint(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h:1/a/b?c=d#e", "https://h:1/a/b"),
        ("http://h", "http://h"),
        ("http://u:p@[::1", "http://[::1"),
        ("u:p@h", "h"),
    ],
)
def test_what_of_a_url_is_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize("limit", [0, -1, "5", True, float("nan")])
@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
def test_limits_that_are_none(name: str, limit: object) -> None:
    with pytest.raises(InvalidParamsError, match=rf"^{name}: expected seconds"):
        HttpClient(**{name: limit})  # type: ignore[arg-type]


def test_a_handshake_that_a_restart_ends_is_tried_again(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    monkeypatch.setattr(replies, "RETRY_PAUSE", 0.001)
    context = served_by(authority)

    def half(peer: Peer) -> None:
        if len(server.peers) == 1:
            peer.sock.recv(65536)  # the client's hello, and the end
            return
        with context.wrap_socket(peer.sock, server_side=True) as peer.sock:
            answering(body="1")(peer)

    with ScriptedServer(half) as server, HttpClient(ssl_context=trusting) as client:
        url = f"https://localhost:{server.port}/"
        assert client.request("GET", url, retry_for=30, repeat=Repeat.SAFE).json() == 1
    assert len(server.peers) == 2


def test_a_client_cannot_be_pickled() -> None:
    with (
        HttpClient() as client,
        pytest.raises(TypeError, match="send the URL to the other process"),
    ):
        pickle.dumps(client)


def test_a_forgotten_client_leaves_nothing_open() -> None:
    """The fixture of every test looks for sockets, and warnings are errors."""

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        peer.until_gone()

    with ScriptedServer(script) as server:
        HttpClient().request("GET", server.http_url)


def test_a_url_that_requests_refuses_is_an_http_error() -> None:
    with HttpClient() as client:
        with pytest.raises(HttpError):
            client.request("GET", "http://a b/")

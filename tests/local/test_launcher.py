"""Starting and ending simulators: in a thread, in a process, in the foreground."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from backtest_sync.errors import InvalidParamsError
from backtest_sync.local import LocalSimulator, SimulatorError, launcher
from backtest_sync.local.bundle import BundleError
from tests.local import small
from tests.local.peer import Peer, slots

ALL = 2**64 - 1


def run_whole(url: str) -> list[int]:
    with Peer(url) as peer:
        peer.create(small.FIRST, small.LAST)
        return slots(peer.seen) + slots(peer.advance(ALL))


@pytest.mark.parametrize("process", [False, True])
def test_a_simulator_serves_and_ends(small_bundle: Path, process: bool) -> None:
    simulator = LocalSimulator(small_bundle, process=process)
    with simulator:
        assert simulator.url.startswith("ws://127.0.0.1:")
        assert simulator.url.endswith("/backtest")
        assert run_whole(simulator.url) == small.produced()
        url = simulator.url
    with pytest.raises(ConnectionRefusedError), Peer(url, proxy=None):
        pass
    with pytest.raises(SimulatorError, match="not running"):
        _ = simulator.url
    simulator.close()


def test_it_can_be_started_again(small_bundle: Path) -> None:
    simulator = LocalSimulator(small_bundle)
    for _ in range(2):
        with simulator, Peer(simulator.url) as peer:
            peer.create(small.FIRST, small.LAST)


def test_ending_it_ends_its_connections(small_bundle: Path) -> None:
    with LocalSimulator(small_bundle) as simulator:
        with Peer(simulator.url) as peer:
            peer.create(small.FIRST, small.LAST)
            simulator.close()
            with pytest.raises(Exception, match=r"1001|no close frame"):
                peer.next()


@pytest.mark.parametrize("process", [False, True])
def test_a_port_in_use_is_one_line_and_what_to_do(small_bundle: Path, process: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SimulatorError) as error:
            LocalSimulator(small_bundle, port=port, process=process).start()
    assert f"127.0.0.1:{port}" in str(error.value)
    assert "another port" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("process", "kind"), [(False, BundleError), (True, SimulatorError)])
def test_no_such_bundle_is_one_line(tmp_path: Path, process: bool, kind: type[Exception]) -> None:
    with pytest.raises(kind) as error:
        LocalSimulator(tmp_path / "none.jsonl", process=process).start()
    assert "none.jsonl" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_extra_says_what_to_install(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "backtest_sync.local.server", raising=False)
    monkeypatch.delitem(sys.modules, "backtest_sync.local.wire", raising=False)
    with pytest.raises(SimulatorError, match=r"pip install 'backtest-sync\[local\]'"):
        LocalSimulator(small_bundle).start()


@pytest.mark.parametrize("field", [{"port": 70000}, {"port": -1}, {"max_sessions": 0}])
def test_values_that_can_not_be_meant(field: dict[str, int]) -> None:
    with pytest.raises(InvalidParamsError, match=next(iter(field))):
        LocalSimulator(**field)  # type: ignore[arg-type]


def test_it_can_not_be_pickled(small_bundle: Path) -> None:
    with pytest.raises(TypeError, match="url"):
        pickle.dumps(LocalSimulator(small_bundle))


def test_faults_reach_a_process(small_bundle: Path) -> None:
    with LocalSimulator(small_bundle, process=True) as simulator, Peer(simulator.url) as peer:
        session_id = peer.create(small.FIRST, small.LAST)
        assert simulator.faults.forget(session_id)
        with pytest.raises(SimulatorError, match="how"):
            simulator.faults.drop("kindly")  # type: ignore[arg-type]
        simulator.faults.drop("end")
        with pytest.raises(Exception, match="no close frame"):
            peer.next()
        assert simulator.faults.fired == 1


def test_a_process_that_died_says_so(small_bundle: Path) -> None:
    with LocalSimulator(small_bundle, process=True) as simulator:
        os.kill(simulator._running.runner._process.pid, signal.SIGKILL)
        simulator._running.runner._process.wait()
        with pytest.raises(SimulatorError, match="process"):
            simulator.faults.clear()


def test_forgetting_it_ends_it(small_bundle: Path) -> None:
    process = LocalSimulator(small_bundle, process=True).start()._running.runner._process
    assert process.wait(20) == 0


_PARENT = """
    import sys
    from backtest_sync.local import LocalSimulator
    simulator = LocalSimulator(sys.argv[1], process=True).start()
    print(simulator._running.runner._process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_the_process_ends_with_its_parent(small_bundle: Path, end: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_PARENT), str(small_bundle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        child = int(parent.stdout.readline())
        # readable at the moment the process ends, whoever its parent is then
        ended = os.pidfd_open(child)
        try:
            if end == "exit":
                parent.stdin.close()
            else:
                parent.kill()
            assert select.select([ended], [], [], 20)[0]
        finally:
            os.close(ended)


_SERVE = """
    import sys
    from backtest_sync.local import serve
    serve(sys.argv[1], port=0, api_key="k", on_ready=lambda url: print(url, flush=True))
    print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serving_in_the_foreground_ends_cleanly(small_bundle: Path, number: int) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_SERVE), str(small_bundle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        assert server.stderr is not None
        url = server.stdout.readline().strip()
        with Peer(url, additional_headers={"X-API-Key": "k"}) as peer:
            peer.create(small.FIRST, small.LAST)
            server.send_signal(number)
            assert server.stdout.readline() == "ended\n"
        assert server.wait(20) == 0
        assert server.stderr.read() == ""


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "ws://127.0.0.1:1/backtest"),
        ("0.0.0.0", "ws://127.0.0.1:1/backtest"),
        ("::1", "ws://[::1]:1/backtest"),
        ("localhost", "ws://localhost:1/backtest"),
    ],
)
def test_the_url_of_a_host(host: str, url: str) -> None:
    assert launcher.url_of(host, 1) == url

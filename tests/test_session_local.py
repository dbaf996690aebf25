"""Sessions on the local simulator: the same methods against a server that executes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib import resources

import pytest
from attrs import evolve

from backtest_sync import (
    AccountDiffNotification,
    AdvanceState,
    BacktestClient,
    BacktestSession,
    BacktestStatus,
    ConnectionStatus,
    Continue,
    DiscoveryFilter,
    LogNotification,
    ReadyForContinue,
    ReadyOutcome,
    RemoteError,
    SessionClosedError,
    SlotNotification,
    connect_local,
)
from backtest_sync.local import LocalSimulator, demo

START = demo.RANGE_STARTS[0]
END = START + 20


@pytest.fixture(scope="module")
def simulator() -> Iterator[LocalSimulator]:
    with LocalSimulator(process=True) as running:
        yield running


@pytest.fixture
def client(simulator: LocalSimulator) -> Iterator[BacktestClient]:
    with BacktestClient(simulator.url, "", request_timeout=30.0) as made:
        yield made


def opened(client: BacktestClient, end: int = END, **fields: object) -> BacktestSession:
    return client.create_session(start_slot=START, end_slot=end, **fields)


def test_from_connect_to_close(client: BacktestClient) -> None:
    with opened(client, send_summary=True) as session:
        assert session.ensure_ready() is ReadyOutcome.READY
        assert session.rpc.get_slot() == START
        result = session.advance(3)
        assert result.slot_notifications == 3
        assert result.ready_for_continue
        assert BacktestStatus.EXECUTED_BLOCK_TRANSACTIONS in result.statuses
        ran = session.run()
        assert ran.completed
        assert ran.last_slot is not None
        assert ran.last_slot <= END
        assert ran.summary is not None
        assert not ran.summary.has_deviations
        assert ran.coverage.completed
    assert session.connection_status is ConnectionStatus.CLOSED


def test_advance_without_waiting_for_readiness_first(client: BacktestClient) -> None:
    with opened(client) as session:
        result = session.advance(2)
        assert result.slot_notifications == 2


def test_every_slot_once_in_order(client: BacktestClient) -> None:
    with opened(client) as session:
        slots: list[int] = []

        def note(event: object) -> None:
            if isinstance(event, SlotNotification):
                slots.append(event.slot)

        session.run(3, on_event=note)
        assert slots == sorted(set(slots))
        assert slots[0] == START


def test_pause_inside_a_slot_and_read(client: BacktestClient) -> None:
    with opened(client) as session:
        paused = session.continue_to(START + 2, 1)
        assert (paused.slot, paused.batch_index) == (START + 2, 1)
        before = session.rpc.get_account_info(demo.BASE_VAULT)
        assert before is not None
        assert session.is_ready_for_continue
        session.continue_(1)


def test_pause_before_each_swap(client: BacktestClient) -> None:
    filters = [DiscoveryFilter.program_executed(demo.POOL_PROGRAM)]
    with opened(client, end=START + 5, discoveries=filters) as session:
        pauses = list(session.discoveries(30.0))
        assert pauses
        for pause in pauses:
            assert pause.paused.slot == pause.discovery.slot
            assert pause.paused.batch_index == pause.discovery.batch_index
        assert session.is_completed


def test_ensure_ready_does_not_lose_discoveries(client: BacktestClient) -> None:
    filters = [DiscoveryFilter.program_executed(demo.POOL_PROGRAM)]
    with opened(client, end=START + 5, discoveries=filters) as direct:
        expected = [pause.paused for pause in direct.discoveries(30.0)]
    with opened(client, end=START + 5, discoveries=filters) as session:
        session.ensure_ready()
        assert [pause.paused for pause in session.discoveries(30.0)] == expected


def test_attach_from_the_last_sequence(client: BacktestClient) -> None:
    first = opened(client, disconnect_timeout_secs=60)
    first.advance(3)
    seen = first.last_sequence
    first.abort()
    with client.attach_session(first.session_id, seen) as second:
        second.resume_attached_session()
        result = second.run()
        assert result.completed
        assert result.first_slot is not None
        assert first.coverage.highest_slot_seen is not None
        assert result.first_slot > first.coverage.highest_slot_seen


def test_attach_to_an_unknown_session(client: BacktestClient) -> None:
    with pytest.raises(RemoteError, match="session not found"):
        client.attach_session("backtest_" + "0" * 31 + "1")


def test_subscriptions_are_whole_when_run_returns(client: BacktestClient) -> None:
    with opened(client) as session:
        session.ensure_ready()
        logs: list[LogNotification] = []
        diffs: list[AccountDiffNotification] = []
        session.subscribe_program_logs(demo.POOL_PROGRAM, on_notification=logs.append)
        session.subscribe_account_diffs(demo.BASE_VAULT, on_notification=diffs.append)
        assert session.run().completed
        swaps = [swap for note in logs for swap in demo.pool_swaps(note.value.logs)]
        assert swaps
        assert len(diffs) == len(swaps)
        for diff, swap in zip(diffs, swaps, strict=True):
            assert diff.post is not None
            reserve = swap.reserve_in if swap.sells_base else swap.reserve_out
            assert demo.token_amount(diff.post.data) == reserve


def test_a_replaced_program_changes_outputs_as_computed(client: BacktestClient) -> None:
    elf = resources.files("backtest_sync.local.programs").joinpath("pool_v2.so").read_bytes()

    def first_swap(replace: bool) -> demo.Swap:
        with opened(client) as session:
            session.ensure_ready()
            logs: list[LogNotification] = []
            session.subscribe_program_logs(demo.POOL_PROGRAM, on_notification=logs.append)
            changed = session.modify_program(demo.POOL_PROGRAM, elf) if replace else None
            session.continue_(1, modify_accounts=changed)
            session.run()
            return next(swap for note in logs for swap in demo.pool_swaps(note.value.logs))

    old, new = first_swap(False), first_swap(True)
    assert (old.amount_in, old.sells_base) == (new.amount_in, new.sells_base)
    reserve_in, reserve_out = old.reserve_in - old.amount_in, old.reserve_out + old.amount_out
    assert old.amount_out == demo.amount_out(
        old.amount_in, reserve_in, reserve_out, demo.FEE_BPS[1]
    )
    assert new.amount_out == demo.amount_out(
        new.amount_in, reserve_in, reserve_out, demo.FEE_BPS[2]
    )
    assert new.amount_out > old.amount_out


def test_modify_accounts_and_undo(client: BacktestClient) -> None:
    with opened(client) as session:
        session.ensure_ready()
        old = session.rpc.get_account_info(demo.ALICE.address)
        assert old is not None
        richer = evolve(old.to_account_data(), lamports=old.lamports + 5)
        assert session.modify_accounts({demo.ALICE.address: richer}) == 1
        assert session.rpc.get_balance(demo.ALICE.address) == old.lamports + 5
        session.modify_accounts({demo.ALICE.address: old.to_account_data()})
        assert session.rpc.get_balance(demo.ALICE.address) == old.lamports


def test_a_handoff_ends_the_session_with_a_hint(
    simulator: LocalSimulator, client: BacktestClient
) -> None:
    session = opened(client, end=demo.RANGE_STARTS[1] - 1)
    session.ensure_ready()
    simulator.faults.drop(how="close", after=2)
    with pytest.raises(SessionClosedError) as caught:
        session.advance(10)
    assert caught.value.code == 1012
    assert session.session_id in str(caught.value)
    with client.attach_session(session.session_id, session.last_sequence) as again:
        again.resume_attached_session()
        assert again.run().completed


def test_close_from_another_thread_ends_a_run(client: BacktestClient) -> None:
    with opened(client) as session:
        started, release = threading.Event(), threading.Event()
        outcome: list[BaseException] = []

        def step(_: BacktestSession) -> Continue | None:
            started.set()
            release.wait(10)
            return Continue(advance_count=1)

        def run() -> None:
            try:
                session.run(step)
            except BaseException as failure:
                outcome.append(failure)

        thread = threading.Thread(target=run)
        thread.start()
        assert started.wait(10)
        session.close()
        release.set()
        thread.join(10)
        assert isinstance(outcome[0], SessionClosedError)


def test_an_error_of_the_server_leaves_the_session_usable(client: BacktestClient) -> None:
    with opened(client) as session:
        with pytest.raises(RemoteError, match="invalid transaction"):
            session.continue_(1, transactions=[b"\xff"])
        assert session.ensure_ready() is ReadyOutcome.READY
        assert session.advance(1).slot_notifications == 1


def test_connect_local_ends_both() -> None:
    with connect_local() as client:
        with client.create_session(start_slot=START, slot_count=2) as session:
            assert session.run().completed
        simulator = client.simulator
    assert "not running" in repr(simulator)


def test_twenty_sessions_side_by_side(client: BacktestClient) -> None:
    sessions = [opened(client, end=START + 4) for _ in range(20)]
    results = [session.run() for session in sessions]
    assert len({result.slots for result in results}) == 1
    assert all(result.completed for result in results)


def test_the_steps_of_a_continue_one_by_one(client: BacktestClient) -> None:
    with opened(client) as session:
        session.ensure_ready()
        session.send_continue(2)
        session.wait_for_status("executedBlockTransactions")
        assert session.ensure_ready() is ReadyOutcome.READY
        session.send(Continue(advance_count=2))
        state = AdvanceState(expected_slots=2)
        while not state.is_done(wait_for_slots=True):
            session.advance_step(state, wait_for_slots=True)
        assert state.slot_notifications == 2
        assert session.continue_until_ready(1).slot_notifications == 1


def test_driving_by_events(client: BacktestClient) -> None:
    with opened(client) as session:
        slots = []
        for event in session:
            if isinstance(event, SlotNotification):
                slots.append(event.slot)
            elif isinstance(event, ReadyForContinue):
                session.send_continue(5)
        assert session.is_completed
        assert session.next_response() is None
    with opened(client) as reference:
        run = reference.run()
    assert (len(slots), slots[0], slots[-1]) == (run.slots, run.first_slot, run.last_slot)


def test_leaving_responses_and_closing_with_a_reason(client: BacktestClient) -> None:
    session = opened(client)
    for response in session.responses(30.0):
        if isinstance(response, ReadyForContinue):
            break
    assert session.is_closed
    other = opened(client)
    other.close_with_reason(10.0, 4000, "enough")
    assert other.connection_status is ConnectionStatus.CLOSED
    with pytest.raises(RemoteError, match="session not found"):
        client.attach_session(other.session_id)


def test_an_aborted_session_lives_on_for_its_disconnect_timeout(client: BacktestClient) -> None:
    session = opened(client)
    session.ensure_ready()
    session.abort()
    with client.attach_session(session.session_id, session.last_sequence) as again:
        again.resume_attached_session()
        assert again.advance(1).slot_notifications == 1

"""An unmodified solana-py works on a session's endpoint, over real sockets.

Skipped where ``solana`` is not installed: it is no dependency of the project.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import websocket

from backtest_sync.local import LocalSimulator, demo
from backtest_sync.urls import http_base_from_ws_url, http_to_ws_url, resolve_rpc_url

pytest.importorskip("solana", reason="solana-py is not installed")

from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solana.rpc.core import RPCException
from solana.rpc.models import DataSliceOpts, MemcmpOpts, TokenAccountOpts, TxOpts
from solana.rpc.websocket_api import SolanaWsClient
from solders.account import Account
from solders.pubkey import Pubkey
from solders.rpc.config import RpcTransactionLogsFilterMentions
from solders.signature import Signature
from solders.transaction import VersionedTransaction

POOL = Pubkey.from_string(demo.POOL)
POOL_PROGRAM = Pubkey.from_string(demo.POOL_PROGRAM)
BASE_VAULT = Pubkey.from_string(demo.BASE_VAULT)
BASE_MINT = Pubkey.from_string(demo.BASE_MINT)
TOKEN = Pubkey.from_string(demo.TOKEN_PROGRAM)
ALICE = Pubkey.from_string(demo.ALICE.address)


def swap(least_out: int = 0) -> VersionedTransaction:
    raw = demo.swap_transaction(demo.ALICE, sells_base=True, amount_in=10**9, least_out=least_out)
    return VersionedTransaction.from_bytes(raw)


class Session:
    """A session on the simulator, driven over its control socket in the plainest way."""

    def __init__(self, simulator: LocalSimulator) -> None:
        self._socket = websocket.create_connection(simulator.url, timeout=20, suppress_origin=True)
        self._send(
            "createBacktestSession",
            {"startSlot": demo.FIRST_SLOT, "endSlot": demo.FIRST_SLOT + 30},
        )
        created = self._until("sessionCreated")
        self.endpoint = resolve_rpc_url(
            http_base_from_ws_url(simulator.url), created["rpc_endpoint"]
        )
        self._until("readyForContinue")

    def advance(self, slots: int) -> None:
        self._send(
            "continue", {"advanceCount": slots, "transactions": [], "modifyAccountStates": {}}
        )
        self._until("readyForContinue", "completed")

    def _send(self, method: str, params: Any) -> None:
        self._socket.send(json.dumps({"method": method, "params": params}))

    def _until(self, *methods: str) -> Any:
        while True:
            message = json.loads(self._socket.recv())
            assert message["method"] != "error", message
            if message["method"] in methods:
                return message.get("params")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def simulator() -> Iterator[LocalSimulator]:
    with LocalSimulator() as running:
        yield running


@pytest.fixture
def session(simulator: LocalSimulator) -> Iterator[Session]:
    opened = Session(simulator)
    yield opened
    opened.close()


def ask(session: Session, question: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncClient(session.endpoint, commitment=Confirmed) as client:
            await question(client)

    asyncio.run(main())


def test_the_chain(session: Session) -> None:
    async def question(client: AsyncClient) -> None:
        assert await client.is_connected()
        assert (await client.get_slot()).value == demo.FIRST_SLOT
        latest = (await client.get_latest_blockhash()).value
        assert latest.last_valid_block_height > (await client.get_block_height()).value
        assert (await client.get_epoch_info()).value.absolute_slot == demo.FIRST_SLOT
        assert (await client.get_version()).value.solana_core
        assert (await client.get_block_time(demo.FIRST_SLOT)).value
        assert (await client.get_minimum_balance_for_rent_exemption(165)).value == 2_039_280

    ask(session, question)


def test_accounts(session: Session) -> None:
    async def question(client: AsyncClient) -> None:
        account = (await client.get_account_info(BASE_VAULT)).value
        assert isinstance(account, Account)
        assert account.owner == TOKEN
        assert demo.token_amount(account.data) == 20_000 * 10**9
        for encoding in ("base64+zstd", "base64"):
            again = (await client.get_account_info(BASE_VAULT, encoding=encoding)).value
            assert again == account
        part = await client.get_account_info(
            BASE_VAULT, data_slice=DataSliceOpts(offset=64, length=8)
        )
        assert part.value is not None
        assert part.value.data == account.data[64:72]
        assert (await client.get_account_info(Pubkey.from_bytes(bytes([9] * 32)))).value is None
        parsed = (await client.get_account_info_json_parsed(BASE_VAULT)).value
        assert parsed is not None
        assert parsed.data.parsed["info"]["mint"] == demo.BASE_MINT
        assert (await client.get_balance(ALICE)).value == 50 * 10**9
        many = (
            await client.get_multiple_accounts([BASE_VAULT, Pubkey.from_bytes(bytes([9] * 32))])
        ).value
        assert many == [account, None]
        found = (
            await client.get_program_accounts(
                TOKEN, filters=[165, MemcmpOpts(offset=32, bytes=demo.POOL)], encoding="base64"
            )
        ).value
        assert {str(entry.pubkey) for entry in found} == {demo.BASE_VAULT, demo.QUOTE_VAULT}
        assert (await client.get_token_account_balance(BASE_VAULT)).value.ui_amount == 20_000.0
        assert (await client.get_token_supply(BASE_MINT)).value.decimals == 9
        owned = await client.get_token_accounts_by_owner(ALICE, TokenAccountOpts(mint=BASE_MINT))
        assert [str(entry.pubkey) for entry in owned.value] == [demo.ALICE.base]
        owned_parsed = await client.get_token_accounts_by_owner_json_parsed(
            ALICE, TokenAccountOpts(program_id=TOKEN)
        )
        assert len(owned_parsed.value) == 2

    ask(session, question)


def test_simulate_send_and_look_up(session: Session) -> None:
    session.advance(2)

    async def question(client: AsyncClient) -> None:
        simulated = (await client.simulate_transaction(swap())).value
        assert simulated.err is None
        assert simulated.logs is not None
        (expected,) = demo.pool_swaps(simulated.logs)
        assert simulated.return_data is not None
        assert int.from_bytes(simulated.return_data.data, "little") == expected.amount_out
        failed = (await client.simulate_transaction(swap(2**63))).value
        assert failed.err is not None

        before = (await client.get_token_account_balance(BASE_VAULT)).value.amount
        signature = (await client.send_transaction(swap())).value
        after = (await client.get_token_account_balance(BASE_VAULT)).value.amount
        assert int(after) - int(before) == 10**9
        assert signature == Signature.default()
        (status,) = (await client.get_signature_statuses([signature])).value
        assert status is not None
        assert status.err is None
        confirmed = (await client.confirm_transaction(signature)).value
        assert confirmed[0] == status
        for encoding in ("json", "jsonParsed", "base64", "base58"):
            sent = (
                await client.get_transaction(
                    signature, encoding=encoding, max_supported_transaction_version=0
                )
            ).value
            assert sent is not None
            meta = sent.transaction.meta
            assert meta is not None
            assert meta.log_messages is not None
            (done,) = demo.pool_swaps(meta.log_messages)
            assert done == expected

        with pytest.raises(RPCException) as caught:
            await client.send_transaction(swap(2**63))
        (message,) = caught.value.args
        assert message.message.endswith("custom program error: 0x1771")
        assert message.data.logs
        skipped = await client.send_transaction(swap(2**63), TxOpts(skip_preflight=True))
        (status,) = (await client.get_signature_statuses([skipped.value])).value
        assert status is not None
        assert status.err is not None
        fee = await client.get_fee_for_message(swap().message)
        assert fee.value == 5000

    ask(session, question)


def test_subscriptions(session: Session) -> None:
    async def main() -> None:
        async with SolanaWsClient(http_to_ws_url(session.endpoint)) as stream:
            account = await stream.account_subscribe(
                pubkey=BASE_VAULT, commitment=Confirmed, encoding="base64"
            )
            parsed = await stream.account_subscribe(pubkey=BASE_VAULT, encoding="jsonParsed")
            logs = await stream.logs_subscribe(
                filter_=RpcTransactionLogsFilterMentions(POOL_PROGRAM), commitment=Confirmed
            )
            slot = await stream.slot_subscribe()
            program = await stream.program_subscribe(
                program_id=POOL_PROGRAM, encoding="base64", filters=[80]
            )
            first = await stream.recv()
            assert first.subscription == slot.subscription_id
            assert first.result.slot == demo.FIRST_SLOT
            await asyncio.to_thread(session.advance, 3)
            seen: dict[int, list[Any]] = {}
            wanted = {s.subscription_id for s in (account, parsed, logs, slot, program)}
            while set(seen) != wanted:
                notification = await asyncio.wait_for(stream.recv(), 20)
                seen.setdefault(notification.subscription, []).append(notification.result)
            state = seen[account.subscription_id][0].value
            assert isinstance(state, Account)
            assert state.owner == TOKEN
            shown = seen[parsed.subscription_id][0].value
            assert shown.data.parsed["info"]["mint"] == demo.BASE_MINT
            log = seen[logs.subscription_id][0].value
            assert demo.pool_swaps(log.logs)
            assert seen[program.subscription_id][0].value.pubkey == POOL
            signature = await stream.signature_subscribe(signature=log.signature)
            while (told := await stream.recv()).subscription != signature.subscription_id:
                pass
            assert told.result.value.err is None
            for subscription in (account, parsed, logs, slot, program):
                await stream.unsubscribe(subscription)

    asyncio.run(main())

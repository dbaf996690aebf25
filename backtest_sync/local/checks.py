"""What a continue or continueTo must be before a session takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from backtest_sync.errors import DeserializeError
from backtest_sync.local import svm
from backtest_sync.local.refusals import invalid_request, refusal
from backtest_sync.protocol import ErrorKind

if TYPE_CHECKING:
    from solders.transaction import VersionedTransaction

    from backtest_sync.local.replay import Replay
    from backtest_sync.protocol import AccountData, ContinueTo


def read_transactions(texts: Sequence[str]) -> list[VersionedTransaction]:
    """The transactions of a continue; RefusedError names the one that is none."""
    transactions = []
    for index, text in enumerate(texts):
        try:
            raw = svm.decode_base64(text)
        except ValueError as error:
            raise refusal(
                ErrorKind.INVALID_TRANSACTION_ENCODING, index=index, error=str(error)
            ) from error
        try:
            transactions.append(svm.parse_sane_transaction(raw))
        except ValueError as error:
            raise refusal(
                ErrorKind.INVALID_TRANSACTION_FORMAT, index=index, error=str(error)
            ) from error
    return transactions


def check_accounts(accounts: Mapping[str, AccountData]) -> None:
    for address, account in accounts.items():
        try:
            account.data.bytes  # noqa: B018 - decodes
        except DeserializeError as error:
            raise refusal(
                ErrorKind.INVALID_ACCOUNT_ENCODING,
                address=address,
                encoding="base64",
                error=error.reason,
            ) from error


def check_target(target: ContinueTo, replay: Replay) -> None:
    """RefusedError where a continueTo can't be reached from where the session stands."""
    slot, index = target.slot, target.batch_index
    start, end = replay.params.start_slot, replay.params.end_slot
    if not start <= slot <= end:
        raise invalid_request(f"continueTo slot {slot} is outside of the session's {start}..={end}")
    if index is not None:
        batches = replay.batches_in(slot)
        if batches is None:
            raise invalid_request(f"continueTo batch {index}: slot {slot} has no block")
        if index > batches:
            raise invalid_request(f"continueTo batch {index}: slot {slot} has {batches} batches")
    if replay.is_started and _is_behind(slot, index, replay):
        raise invalid_request(
            f"continueTo slot {slot}, batch {index}: the session is already at slot "
            f"{replay.slot}, batch {replay.engine.next_batch}"
        )


def _is_behind(slot: int, index: int | None, replay: Replay) -> bool:
    if slot != replay.slot:
        return slot < replay.slot
    return index is not None and index < replay.engine.next_batch

"""Records a bundle from any Solana RPC endpoint.

Blocks come from ``getBlock``, the accounts that they touch from ``getMultipleAccounts``. What can't be known
that way: the accounts are as of now, not as of the first slot, so that executing the blocks on them
deviates from what happened; accounts that are gone by now are missing, and what touched them is
played back.

How requests travel is the caller's: ``call(method, params)`` gives the result, or raises RpcError.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from attrs import define, field, frozen

from backtest_sync.errors import DeserializeError, InvalidParamsError, RpcError
from backtest_sync.local import svm
from backtest_sync.local.accounts import program_data_address
from backtest_sync.local.blocks import RESERVED, parse_block
from backtest_sync.local.bundle import BundleError
from backtest_sync.local.bundle_writer import BundleWriter
from backtest_sync.protocol import jsontext

if TYPE_CHECKING:
    from backtest_sync.local.blocks import Block

    Call = Callable[[str, list[Any]], Any]

#: What a node answers for a slot without a block: skipped, or skipped or missing in storage.
_SKIPPED = (-32007, -32009)
#: Accounts asked for in one request, as many as a node allows.
_ACCOUNTS_AT_ONCE = 100
#: The same for program code, which may be 10 MiB each.
_PROGRAMS_AT_ONCE = 8
_SPOOL_BYTES = 64 * 2**20


@frozen
class Recorded:
    """What was recorded. ``missing``: accounts that the blocks name and that are gone by now.

    ``accounts_slot``: the slot as of which the accounts are.
    """

    path: str
    blocks: int
    skipped: int
    transactions: int
    accounts: int
    missing: int
    accounts_slot: int


def record(
    call: Call,
    start_slot: int,
    end_slot: int,
    path: str | os.PathLike[str],
    *,
    source: str,
    overwrite: bool = False,
    on_slot: Callable[[int, Block | None], None] | None = None,
) -> Recorded:
    """Records the slots from ``start_slot`` to ``end_slot`` (inclusive) into a bundle at ``path``.

    ``source`` says in the bundle where it comes from: a host, without keys. ``on_slot`` is told of
    each slot as it comes, ``None`` for one without a block. The file appears once it is whole.

    Raises InvalidParamsError (the range), BundleError (the file exists or can't be written; no block
    in the range), RpcError and whatever else ``call`` raises, DeserializeError for an answer of another
    shape.
    """
    if not 0 <= start_slot <= end_slot:
        raise InvalidParamsError(f"slots: {start_slot} to {end_slot} is no range")
    with (
        BundleWriter(
            path,
            source=f"recorded from {source}; accounts as of the recording",
            first_slot=start_slot,
            last_slot=end_slot,
            overwrite=overwrite,
        ) as writer,
        tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool,
    ):
        recording = _Recording(call, spool)
        for slot in range(start_slot, end_slot + 1):
            block = recording.take_slot(slot)
            if on_slot is not None:
                on_slot(slot, block)
        if not recording.slots:
            raise BundleError(
                os.fspath(path),
                f"no slot from {start_slot} to {end_slot} has a block; choose another range",
            )
        kept = recording.write_accounts(writer)
        for slot, value in recording.blocks():
            writer.add_block(slot, value)
    return Recorded(
        path=os.fspath(path),
        blocks=len(recording.slots),
        skipped=end_slot - start_slot + 1 - len(recording.slots),
        transactions=recording.transactions,
        accounts=kept,
        missing=recording.missing,
        accounts_slot=recording.accounts_slot,
    )


@define
class _Recording:
    """One recording under way: blocks wait in ``spool`` until the accounts before them are there."""

    _call: Call
    _spool: IO[bytes]
    slots: list[int] = field(factory=list)
    transactions: int = 0
    missing: int = 0
    accounts_slot: int = 0
    _sizes: list[int] = field(factory=list)
    _addresses: dict[str, None] = field(factory=dict)

    def take_slot(self, slot: int) -> Block | None:
        """Fetches and checks a block; ``None`` for a slot that has none."""
        value = self._fetch_block(slot)
        if value is None:
            return None
        try:
            block = parse_block(slot, value, lambda _: None)
        except ValueError as error:
            raise DeserializeError(f"getBlock: {error}", jsontext.dumps(value)) from error
        packed = zlib.compress(jsontext.dumps(value).encode(), 1)
        self._spool.write(packed)
        self._sizes.append(len(packed))
        self.slots.append(slot)
        self.transactions += len(block.transactions)
        self._addresses.update(dict.fromkeys(_addresses_of(block)))
        return block

    def _fetch_block(self, slot: int) -> Any:
        config = {
            "encoding": "base64",
            "transactionDetails": "full",
            "rewards": False,
            "maxSupportedTransactionVersion": 0,
            "commitment": "confirmed",
        }
        try:
            return self._call("getBlock", [slot, config])
        except RpcError as error:
            if error.code in _SKIPPED:
                return None
            raise

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """The blocks, read back from the spool."""
        self._spool.seek(0)
        for slot, size in zip(self.slots, self._sizes, strict=True):
            yield slot, jsontext.loads(zlib.decompress(self._spool.read(size)))

    def write_accounts(self, writer: BundleWriter) -> int:
        """Fetches the accounts that the blocks name, and the code of the programs among them."""
        named = [address for address in self._addresses if address not in RESERVED]
        kept = 0
        code: dict[str, None] = {}
        for address, value in self._fetch_accounts(named, _ACCOUNTS_AT_ONCE):
            writer.add_account(address, value)
            kept += 1
            data_address = program_data_address(svm.account_from_json(value))
            if data_address is not None and data_address not in self._addresses:
                code[data_address] = None
        for address, value in self._fetch_accounts(list(code), _PROGRAMS_AT_ONCE):
            writer.add_account(address, value)
            kept += 1
        return kept

    def _fetch_accounts(
        self, addresses: Sequence[str], at_once: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for start in range(0, len(addresses), at_once):
            asked = addresses[start : start + at_once]
            config = {"encoding": "base64", "commitment": "confirmed"}
            answer = self._call("getMultipleAccounts", [asked, config])
            try:
                self.accounts_slot = answer["context"]["slot"]
                values = answer["value"]
                if len(values) != len(asked):
                    raise ValueError(f"{len(values)} accounts, where {len(asked)} were asked for")
                for value in values:
                    if value is not None:
                        svm.account_from_json(value)
            except (KeyError, TypeError, ValueError) as error:
                raise DeserializeError(
                    f"getMultipleAccounts: {error}", jsontext.dumps(answer)
                ) from error
            for address, value in zip(asked, values, strict=True):
                if value is None:
                    self.missing += 1
                else:
                    yield address, value


def _addresses_of(block: Block) -> Iterable[str]:
    """Every address that a block's execution may read: keys, lookup tables, mints of balances."""
    for transaction in block.transactions:
        yield from transaction.keys
        message: Any = transaction.transaction.message
        for lookup in getattr(message, "address_table_lookups", ()):
            yield str(lookup.account_key)
        for name in ("preTokenBalances", "postTokenBalances"):
            for entry in (transaction.meta or {}).get(name) or ():
                yield entry["mint"]

"""Recorded blocks: ``getBlock`` answers, parsed once for all sessions, and their batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import define, field

from backtest_sync.local import svm
from backtest_sync.local.meta import check_meta

if TYPE_CHECKING:
    from solders.account import Account
    from solders.pubkey import Pubkey
    from solders.transaction import VersionedTransaction

TOKEN_PROGRAMS = frozenset(
    {
        "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
        "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
    }
)

#: Sysvars and built-in programs: nobody writes them, whatever a message says.
RESERVED = frozenset(
    (
        "11111111111111111111111111111111",
        "AddressLookupTab1e1111111111111111111111111",
        "BPFLoader1111111111111111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "ComputeBudget111111111111111111111111111111",
        "Config1111111111111111111111111111111111111",
        "Ed25519SigVerify111111111111111111111111111",
        "Feature111111111111111111111111111111111111",
        "KeccakSecp256k11111111111111111111111111111",
        "LoaderV411111111111111111111111111111111111",
        "NativeLoader1111111111111111111111111111111",
        "Secp256r1SigVerify1111111111111111111111111",
        "Stake11111111111111111111111111111111111111",
        "StakeConfig11111111111111111111111111111111",
        "Sysvar1111111111111111111111111111111111111",
        "Sysvar1nstructions1111111111111111111111111",
        "SysvarC1ock11111111111111111111111111111111",
        "SysvarEpochRewards1111111111111111111111111",
        "SysvarEpochSchedu1e111111111111111111111111",
        "SysvarFees111111111111111111111111111111111",
        "SysvarLastRestartS1ot1111111111111111111111",
        "SysvarRecentB1ockHashes11111111111111111111",
        "SysvarRent111111111111111111111111111111111",
        "SysvarRewards111111111111111111111111111111",
        "SysvarS1otHashes111111111111111111111111111",
        "SysvarS1otHistory11111111111111111111111111",
        "SysvarStakeHistory1111111111111111111111111",
        "Vote111111111111111111111111111111111111111",
        "ZkE1Gama1Proof11111111111111111111111111111",
        "ZkTokenProof1111111111111111111111111111111",
    )
)

#: Reads an account by address while a transaction's lookup tables are resolved.
ReadAccount = Callable[["Pubkey"], "Account | None"]


# No slots: cached_property needs an instance dictionary.
@define(eq=False, slots=False, repr=False)
class BlockTransaction:
    """A transaction with its account keys resolved. Read-only: sessions share it.

    ``meta`` is the recorded one in the ``getBlock`` shape, ``None`` for a user's transaction.
    ``unresolved``: a lookup table could not be read, so that the loaded addresses are unknown.
    """

    index: int  # position in its block
    raw: bytes
    transaction: VersionedTransaction
    signature: str
    keys: tuple[str, ...]  # static, then loaded writable, then loaded read-only
    pubkeys: tuple[Pubkey, ...]  # the same, as solders objects
    writable: tuple[int, ...]  # positions in keys that are locked for writing
    loaded_writable: tuple[str, ...]
    loaded_readonly: tuple[str, ...]
    unresolved: bool
    meta: dict[str, Any] | None

    def __repr__(self) -> str:
        return f"BlockTransaction({self.index}, {self.signature})"

    @cached_property
    def key_set(self) -> frozenset[str]:
        """The account keys as a set."""
        return frozenset(self.keys)

    @cached_property
    def written(self) -> frozenset[str]:
        """The keys that are locked for writing."""
        return frozenset(self.keys[i] for i in self.writable)

    @cached_property
    def programs(self) -> frozenset[str]:
        """Programs invoked: at top level, and by CPI as recorded."""
        inner = (self.meta or {}).get("innerInstructions")
        return invoked_programs(self.transaction.message, self.keys, inner)

    @cached_property
    def names_token_program(self) -> bool:
        """Whether a token program is among the keys: only then a node lists token balances."""
        return not TOKEN_PROGRAMS.isdisjoint(self.key_set)

    @cached_property
    def changes_token_balance(self) -> bool:
        """As recorded: whether a token balance differs before and after."""
        meta = self.meta or {}
        return token_amounts(meta.get("preTokenBalances")) != token_amounts(
            meta.get("postTokenBalances")
        )

    @cached_property
    def is_sane(self) -> bool:
        """Whether its indexes are in bounds, so that it can be executed at all."""
        return svm.is_sane(self.transaction)


def invoked_programs(
    message: Any, keys: Sequence[str], inner: Iterable[Any] | None
) -> frozenset[str]:
    """Programs that a message invokes, and those of ``innerInstructions``."""
    indexes = {instruction.program_id_index for instruction in message.instructions}
    for group in inner or ():
        indexes.update(instruction["programIdIndex"] for instruction in group["instructions"])
    return frozenset(keys[i] for i in indexes if i < len(keys))


def token_amounts(balances: Any) -> dict[int, tuple[str, str]]:
    """Mint and amount by account index, of recorded ``…TokenBalances``."""
    return {
        entry["accountIndex"]: (entry["mint"], entry["uiTokenAmount"]["amount"])
        for entry in balances or ()
    }


def prepare(
    transaction: VersionedTransaction,
    raw: bytes,
    *,
    index: int,
    read: ReadAccount,
    meta: dict[str, Any] | None = None,
) -> BlockTransaction:
    """A transaction with its keys resolved: from the recorded ``meta``, else from the tables."""
    message: Any = transaction.message
    static = message.account_keys
    loaded = _recorded_addresses(meta) if meta is not None else None
    lookups = getattr(message, "address_table_lookups", ())
    if lookups and (loaded is None or not any(loaded)):
        loaded = svm.resolve_tables(message, read)
    unresolved = bool(lookups) and loaded is None
    writable_keys, readonly_keys = loaded or ([], [])
    first_loaded = len(static)
    writable = writable_positions(message)
    writable.extend(range(first_loaded, first_loaded + len(writable_keys)))
    pubkeys = (*static, *writable_keys, *readonly_keys)
    return BlockTransaction(
        index=index,
        raw=raw,
        transaction=transaction,
        signature=str(transaction.signatures[0]),
        keys=tuple(map(str, pubkeys)),
        pubkeys=pubkeys,
        writable=tuple(writable),
        loaded_writable=tuple(map(str, writable_keys)),
        loaded_readonly=tuple(map(str, readonly_keys)),
        unresolved=unresolved,
        meta=meta,
    )


def writable_positions(message: Any) -> list[int]:
    """Positions of the static keys that a message may write.

    Those that its header marks so, except for programs that it calls (unless the upgradeable loader is
    among the keys, as in an upgrade) and for what the runtime never lets anybody write.
    """
    keys = message.account_keys
    header = message.header
    signers = min(header.num_required_signatures, len(keys))  # more where it is insane
    marked = [
        *range(signers - header.num_readonly_signed_accounts),
        *range(signers, len(keys) - header.num_readonly_unsigned_accounts),
    ]
    names = [str(keys[i]) for i in marked]
    upgrading = str(svm.UPGRADEABLE_LOADER) in map(str, keys)
    called = set() if upgrading else {i.program_id_index for i in message.instructions}
    return [
        i for i, name in zip(marked, names, strict=True) if not (i in called or name in RESERVED)
    ]


def _recorded_addresses(meta: dict[str, Any]) -> tuple[list[Pubkey], list[Pubkey]] | None:
    loaded = meta.get("loadedAddresses")
    if not loaded:
        return None
    return svm.to_pubkeys(loaded["writable"]), svm.to_pubkeys(loaded["readonly"])


@define(eq=False, slots=False, repr=False)
class Block:
    """A produced block. Read-only: sessions share it."""

    slot: int
    parent_slot: int
    blockhash: str
    previous_blockhash: str
    block_time: int | None
    block_height: int | None
    transactions: tuple[BlockTransaction, ...] = field(factory=tuple)

    def __repr__(self) -> str:
        return f"Block({self.slot}, {len(self.transactions)} transactions)"

    @cached_property
    def batches(self) -> tuple[tuple[BlockTransaction, ...], ...]:
        """The block's transactions in batches, in block order."""
        return tuple(tuple(batch) for batch in split_batches(self.transactions))


def split_batches(transactions: Iterable[BlockTransaction]) -> list[list[BlockTransaction]]:
    """Maximal runs of consecutive transactions in which no two lock an account in conflict.

    Two locks of an account conflict unless both only read. A transaction whose lookup tables are
    unknown may lock anything: it is a batch of its own.
    """
    batches: list[list[BlockTransaction]] = []
    written: set[str] = set()
    locked: set[str] = set()
    alone = True  # the batch under way takes nobody else
    for transaction in transactions:
        if (
            alone
            or transaction.unresolved
            or not written.isdisjoint(transaction.key_set)
            or not locked.isdisjoint(transaction.written)
        ):
            batches.append([])
            written.clear()
            locked.clear()
        batches[-1].append(transaction)
        written |= transaction.written
        locked |= transaction.key_set
        alone = transaction.unresolved
    return batches


def parse_block(slot: int, value: Any, read: ReadAccount) -> Block:
    """A block from its slot and the ``result`` of ``getBlock`` with base64 transactions.

    ``read`` finds lookup tables for transactions whose loaded addresses were not recorded.
    ValueError says what is off, and in which transaction.
    """
    try:
        block = _parse_header(slot, value)
        entries = value["transactions"]
    except ValueError as error:
        raise ValueError(f"block {slot}: {error}") from error
    parsed = []
    for index, entry in enumerate(entries):
        try:
            parsed.append(_parse_entry(index, entry, read))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"transaction {index} of block {slot}: {_said(error)}") from error
    block.transactions = tuple(parsed)
    return block


def _parse_header(slot: int, value: Any) -> Block:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if not isinstance(value.get("transactions"), list):
        raise ValueError('no transactions: ask getBlock for transactionDetails "full"')
    block = Block(
        slot=slot,
        parent_slot=_number(value, "parentSlot"),
        blockhash=svm.checked_hash(value.get("blockhash"), "blockhash"),
        previous_blockhash=svm.checked_hash(value.get("previousBlockhash"), "previousBlockhash"),
        block_time=_optional_number(value, "blockTime"),
        block_height=_optional_number(value, "blockHeight"),
    )
    if block.parent_slot >= slot:
        raise ValueError(f"its parent, slot {block.parent_slot}, is not before it")
    return block


def _parse_entry(index: int, entry: Any, read: ReadAccount) -> BlockTransaction:
    if not isinstance(entry, dict) or "transaction" not in entry:
        raise ValueError("not an object with a transaction")
    encoded = entry["transaction"]
    if not (isinstance(encoded, list) and len(encoded) == 2 and encoded[1] == "base64"):
        raise ValueError('not encoded as [text, "base64"]: ask getBlock for encoding "base64"')
    meta = entry.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise ValueError("meta is neither an object nor null")
    raw = svm.decode_base64(encoded[0])
    parsed = prepare(svm.parse_transaction(raw), raw, index=index, read=read, meta=meta)
    if meta is not None:
        check_meta(meta, len(parsed.keys), at_least=parsed.unresolved)
    return parsed


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error)


def _number(value: dict[str, Any], name: str) -> int:
    number = value.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"{name} is {number!r}, not a number")
    return number


def _optional_number(value: dict[str, Any], name: str) -> int | None:
    return None if value.get(name) is None else _number(value, name)

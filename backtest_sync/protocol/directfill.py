"""Direct-fill templates: an instruction to trade by, with the places of amount and taker.

protocol/reroute.md §4. A template is checked as a whole, whether it is made or read; its parts
are plain records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol import jsontext
from backtest_sync.protocol.accounts import BINARY, EncodedBinary
from backtest_sync.protocol.fields import (
    WireEnum,
    address_bytes,
    b58encode,
    b64decode,
    shown,
    to_address,
    to_text,
)
from backtest_sync.protocol.kinds import (
    ADDRESS,
    BOOL,
    TEXT,
    U8,
    U32,
    choice,
    list_of,
    optional,
    spelling,
)
from backtest_sync.protocol.shape import (
    Kind,
    Mismatch,
    Value,
    custom,
    expect_object,
    kind_of,
    member,
    struct,
    value_class,
    wire,
)

if TYPE_CHECKING:
    from backtest_sync.protocol.fields import AddressLike, BinaryLike

MAX_ACCOUNTS = 255
MAX_SEEDS = 16
MAX_SEED_BYTES = 32
_AMOUNT_BYTES = 8


class SwapMode(WireEnum):
    """Which side of a swap the amount fixes."""

    EXACT_IN = "ExactIn"
    EXACT_OUT = "ExactOut"


def _accept_address(value: Any, field: str) -> str:
    if isinstance(value, str):
        return to_text(value, field)
    return b58encode(value) if isinstance(value, bytes) else to_address(value, field)


#: An address that is checked with the template that it is part of.
_UNCHECKED = Kind(_accept_address, TEXT.read)


def _accept_slots(value: Any, field: str) -> Any:
    return _SLOT_LIST.accept((value,) if isinstance(value, int) else value, field)


def _read_slots(json: Any) -> Any:
    return _SLOT_LIST.read(json if isinstance(json, list) else [json])


def _write_slots(slots: tuple[int, ...]) -> Any:
    return slots[0] if len(slots) == 1 else list(slots)


_SLOT_LIST = list_of(U8)
#: Indices of instruction accounts; a single one is a bare number on the wire.
_SLOTS = Kind(_accept_slots, _read_slots, _write_slots)


@value_class
class TemplateAccount(Value):
    """An account of a template's instruction."""

    address: str = wire(_UNCHECKED)
    writable: bool = wire(BOOL, default=False)
    signer: bool = wire(BOOL, default=False)


@value_class
class TemplateInstruction(Value):
    """The instruction that a probe rewrites."""

    program_id: str = wire(_UNCHECKED)
    accounts: tuple[TemplateAccount, ...] = wire(list_of(struct(TemplateAccount)))
    data: EncodedBinary = wire(BINARY)

    if TYPE_CHECKING:

        def __init__(
            self, program_id: AddressLike, accounts: Iterable[TemplateAccount], data: BinaryLike
        ) -> None: ...


@value_class
class TemplateSeed(Value):
    """A seed of a derived account: ``TemplateSeed("text")``, or the user's address."""

    utf8: str | None = wire(optional(TEXT), default=None)

    @classmethod
    def user(cls) -> TemplateSeed:
        """The user's address as a seed."""
        return cls()


_SEED_KEYS = frozenset(("utf8",))


def _read_seed(json: Any) -> TemplateSeed:
    if isinstance(json, dict) and "utf8" in json:
        expect_object(json, _SEED_KEYS)
        return TemplateSeed(member(json, "utf8", TEXT))
    if spelling(json) != "user":
        raise Mismatch(f"unknown seed {spelling(json)!r}, expected utf8 or user")
    return TemplateSeed.user()


def _write_seed(seed: TemplateSeed) -> Any:
    return "user" if seed.utf8 is None else {"utf8": seed.utf8}


_SEED = custom(TemplateSeed, _read_seed, _write_seed)


@value_class
class DerivedAccount(Value):
    """An account that is derived from seeds for each taker."""

    program: str = wire(ADDRESS)
    seeds: tuple[TemplateSeed, ...] = wire(list_of(_SEED))
    slots: tuple[int, ...] = wire(_SLOTS)

    if TYPE_CHECKING:

        def __init__(
            self, program: AddressLike, seeds: Iterable[TemplateSeed], slots: Iterable[int] | int
        ) -> None: ...


@value_class
class TemplateTaker(Value):
    """Which of the instruction's accounts are the taker's, by index."""

    user: tuple[int, ...] = wire(_SLOT_LIST)
    input_token_account: tuple[int, ...] = wire(_SLOTS)
    output_token_account: tuple[int, ...] = wire(_SLOTS)
    derived: tuple[DerivedAccount, ...] = wire(list_of(struct(DerivedAccount)), default=(), omit=())

    if TYPE_CHECKING:

        def __init__(
            self,
            user: Iterable[int],
            input_token_account: Iterable[int] | int,
            output_token_account: Iterable[int] | int,
            derived: Iterable[DerivedAccount] = (),
        ) -> None: ...

    def roles(self) -> Iterator[tuple[str, int]]:
        """Every slot with the role that names it."""
        for slot in self.user:
            yield "user", slot
        for slot in self.input_token_account:
            yield "inputTokenAccount", slot
        for slot in self.output_token_account:
            yield "outputTokenAccount", slot
        for account in self.derived:
            for slot in account.slots:
                yield "derived", slot


@value_class
class DirectFillTemplate(Value):
    """An instruction to fill swaps by: per probe the amount and the taker's accounts change.

    The amount is a little-endian u64 at ``amount_offset`` of the instruction's data. A pair that
    trades both ways is two templates.
    """

    label: str = wire(TEXT)
    mode: SwapMode = wire(choice(SwapMode))
    input_mint: str = wire(_UNCHECKED)
    output_mint: str = wire(_UNCHECKED)
    instruction: TemplateInstruction = wire(struct(TemplateInstruction))
    amount_offset: int = wire(U32)
    taker: TemplateTaker = wire(struct(TemplateTaker))

    if TYPE_CHECKING:

        def __init__(
            self,
            label: str,
            mode: SwapMode | str,
            input_mint: AddressLike,
            output_mint: AddressLike,
            instruction: TemplateInstruction,
            amount_offset: int,
            taker: TemplateTaker,
        ) -> None: ...

    def _check(self) -> None:
        for reason in self._faults():
            raise InvalidParamsError(reason)

    def _faults(self) -> Iterator[str]:
        """What is wrong, in the order in which the reference looks."""
        accounts = self.instruction.accounts
        for field, address in self._addresses():
            try:
                address_bytes(address)
            except ValueError:
                yield f"invalid address {address} in template field {field}"
        try:
            size = len(b64decode(self.instruction.data.data))
        except ValueError as error:
            yield f"template instruction data is not valid base64: {error}"
            return
        if not self.label.strip():
            yield "a template's label must not be blank"
        if self.input_mint == self.output_mint:
            yield "a template must trade two different mints"
        if not 1 <= len(accounts) <= MAX_ACCOUNTS:
            yield f"a template instruction must hold 1..=255 accounts, got {len(accounts)}"
        if self.amount_offset + _AMOUNT_BYTES > size:
            yield (
                f"amount offset {self.amount_offset} leaves no room for an amount "
                f"in {size} bytes of data"
            )
        yield from self._taker_faults()

    def _addresses(self) -> Iterator[tuple[str, str]]:
        for index, account in enumerate(self.instruction.accounts):
            yield f"instruction.accounts[{index}].address", account.address
        yield "inputMint", self.input_mint
        yield "outputMint", self.output_mint
        yield "instruction.programId", self.instruction.program_id

    def _taker_faults(self) -> Iterator[str]:
        taker, accounts = self.taker, self.instruction.accounts
        if not taker.user:
            yield "a template must name at least one user slot"
        if not taker.input_token_account or not taker.output_token_account:
            yield "a template must name at least one slot for each token account"
        for derived in taker.derived:
            sizes = [len((seed.utf8 or "").encode()) for seed in derived.seeds]
            if not 1 <= len(sizes) <= MAX_SEEDS or max(sizes) > MAX_SEED_BYTES:
                yield "a derived account must name 1..=16 seeds of at most 32 bytes"
            if not derived.slots:
                yield "a derived account must name at least one slot"
        seen: set[int] = set()
        for role, slot in taker.roles():
            if slot >= len(accounts):
                yield f"{role} slot {slot} is past the instruction's accounts"
            if slot in seen:
                yield f"slot {slot} is named by more than one taker role"
            seen.add(slot)
        for slot in taker.user:
            if not accounts[slot].signer:
                yield f"user slot {slot} must be a signer"
        for slot in (*taker.input_token_account, *taker.output_token_account):
            if not accounts[slot].writable:
                yield f"token account slot {slot} must be writable"


def parse_templates(text: str | bytes, source: str) -> tuple[DirectFillTemplate, ...]:
    """The templates of a JSON list; ``source`` names it in errors (``InvalidParamsError``)."""
    if not isinstance(text, (str, bytes)):
        raise InvalidParamsError(f"text: expected str or bytes, got {shown(text)}")
    source = to_text(source, "source")
    try:
        read = list_of(kind_of(DirectFillTemplate)).read
        templates: tuple[DirectFillTemplate, ...] = read(jsontext.loads_marking(text))
    except Mismatch as error:
        raise InvalidParamsError(f"parsing {source}: {error.reason} at {error.path()}") from None
    except ValueError as error:
        raise InvalidParamsError(f"parsing {source}: {error}") from error
    if not templates:
        raise InvalidParamsError(f"{source}: names no templates")
    seen: set[str] = set()
    for template in templates:
        if template.label in seen:
            raise InvalidParamsError(
                f'{source}: template label "{template.label}" appears more than once'
            )
        seen.add(template.label)
    return templates

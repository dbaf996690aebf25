"""Re-pricing of historical swaps (protocol/reroute.md §3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol.directfill import DirectFillTemplate
from backtest_sync.protocol.fields import WireEnum, address_bytes, shown, to_address, to_text
from backtest_sync.protocol.kinds import ADDRESS, BOOL, TEXT, list_of, optional
from backtest_sync.protocol.shape import (
    Kind,
    Mismatch,
    Value,
    custom,
    described,
    struct,
    value_class,
    wire,
)

if TYPE_CHECKING:
    from backtest_sync.protocol.fields import AddressLike


class SwapAggregator(WireEnum):
    """A swap aggregator whose historical swaps are re-quoted."""

    JUPITER = "jupiter"
    OKX = "okx"
    TITAN = "titan"
    DFLOW = "dflow"


_NAMES = ", ".join(aggregator.value for aggregator in SwapAggregator)


def parse_aggregator(text: str) -> SwapAggregator:
    """The aggregator of a name, whatever its case; ``InvalidParamsError`` for any other."""
    name = text.strip().lower()
    try:
        return SwapAggregator(name)
    except ValueError:
        raise InvalidParamsError(
            f'unknown swap aggregator "{name}"; expected one of {_NAMES}'
        ) from None


def parse_aggregators(text: str) -> tuple[SwapAggregator, ...]:
    """The aggregators of a comma-separated list, in their fixed order and each once."""
    parts = [part for part in to_text(text, "text").split(",") if part.strip()]
    if not parts:
        raise InvalidParamsError(f"name at least one aggregator ({_NAMES})")
    return _ordered(map(parse_aggregator, parts))


def _ordered(aggregators: Iterable[SwapAggregator]) -> tuple[SwapAggregator, ...]:
    chosen = set(aggregators)
    return tuple(aggregator for aggregator in SwapAggregator if aggregator in chosen)


def _accept_aggregators(value: Any, field: str) -> tuple[SwapAggregator, ...]:
    return _ordered(map(parse_aggregator, list_of(TEXT).accept(value, field)))


def _read_aggregators(json: Any) -> tuple[SwapAggregator, ...]:
    try:
        return _ordered(map(parse_aggregator, list_of(TEXT).read(json)))
    except InvalidParamsError as error:
        raise Mismatch(str(error)) from error


#: A set of aggregators.
AGGREGATORS = Kind(
    _accept_aggregators, _read_aggregators, lambda value: [item.value for item in value]
)


@value_class
class MintPair(Value):
    """Two mints, the one with the lower bytes first: a pair has no direction."""

    first: str = wire(TEXT)
    second: str = wire(TEXT)

    if TYPE_CHECKING:

        def __init__(self, first: AddressLike, second: AddressLike) -> None: ...

    def __attrs_post_init__(self) -> None:
        mints = [_mint(self.first), _mint(self.second)]
        first, second = sorted(mints, key=address_bytes)
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "second", second)

    @classmethod
    def parse(cls, text: str) -> MintPair:
        """The pair of a text ``base,quote``."""
        first, comma, second = to_text(text, "text").partition(",")
        if not comma:
            raise InvalidParamsError(f'expected two comma-separated mints, got "{text}"')
        return cls(first.strip(), second.strip())

    def __str__(self) -> str:
        return f"{self.first},{self.second}"


def _mint(value: object) -> str:
    try:
        return to_address(value, "mint")
    except InvalidParamsError as error:
        text = value if isinstance(value, str) else shown(value)
        raise InvalidParamsError(f"invalid mint {text} in pair") from error


def _read_pair(json: Any) -> MintPair:
    if not isinstance(json, list) or len(json) != 2:
        raise Mismatch(f"expected a list of two mints, got {described(json)}")
    first, second = list_of(TEXT).read(json)
    try:
        return MintPair(first, second)
    except InvalidParamsError as error:
        raise Mismatch(str(error)) from error


def _write_pair(pair: MintPair) -> list[str]:
    return [pair.first, pair.second]


_PAIR = custom(MintPair, _read_pair, _write_pair)


def _accept_pair(value: Any, field: str) -> MintPair:
    if isinstance(value, MintPair):
        return value
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return MintPair(*value)
    raise InvalidParamsError(f"{field}: expected a MintPair or two mints, got {shown(value)}")


@value_class
class RerouteFilter(Value):
    """Which pairs of mints are rerouted; none of them admits nothing."""

    pairs: tuple[MintPair, ...] = wire(
        list_of(Kind(_accept_pair, _read_pair, _write_pair)), default=()
    )

    if TYPE_CHECKING:

        def __init__(
            self, pairs: Iterable[MintPair | tuple[AddressLike, AddressLike]] = ()
        ) -> None: ...


@value_class
class RerouteParams(Value):
    """How historical swaps are re-priced; asking for it at all switches it on.

    ``requote`` off leaves only the ``direct_fill`` templates. ``extra_markets`` are further pools.
    """

    aggregators: tuple[SwapAggregator, ...] = wire(AGGREGATORS, default=(SwapAggregator.JUPITER,))
    filter: RerouteFilter | None = wire(optional(struct(RerouteFilter)), default=None, omit=None)
    detect_failed_l1_swaps: bool = wire(BOOL, default=False)
    circular_arbs: bool = wire(BOOL, default=False)
    requote: bool = wire(BOOL, default=True)
    direct_fill: tuple[DirectFillTemplate, ...] = wire(
        list_of(struct(DirectFillTemplate)), default=(), omit=()
    )
    extra_markets: tuple[str, ...] = wire(list_of(ADDRESS), default=(), omit=())

    if TYPE_CHECKING:

        def __init__(
            self,
            aggregators: Iterable[SwapAggregator | str] = ...,
            filter: RerouteFilter | None = None,  # noqa: A002 - the protocol's word
            detect_failed_l1_swaps: bool = False,
            circular_arbs: bool = False,
            requote: bool = True,
            direct_fill: Iterable[DirectFillTemplate] = (),
            extra_markets: Iterable[AddressLike] = (),
        ) -> None: ...

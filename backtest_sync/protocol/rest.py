"""Bodies of the REST endpoints (protocol/http.md). Keys are snake_case there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol.accounts import MODIFICATIONS, AccountModifications
from backtest_sync.protocol.fields import U64_MAX, WireEnum, b64decode, to_u64, to_uint
from backtest_sync.protocol.kinds import (
    ADDRESS,
    BASE64,
    I64,
    TEXT,
    U16,
    U64,
    choice,
    list_of,
    optional,
)
from backtest_sync.protocol.shape import Value, struct, value_class, wire
from backtest_sync.protocol.times import TIME

if TYPE_CHECKING:
    from backtest_sync.protocol.fields import AddressLike, BinaryLike, ModificationsLike


class BundleKind(WireEnum):
    """What a bundle holds. ``label`` is the word for people."""

    BLOCKS = "blocks"
    ACCOUNT_STATE = "account_state"

    @property
    def label(self) -> str:
        """``transactions`` for blocks, else the wire's word."""
        return "transactions" if self is BundleKind.BLOCKS else self.value


class RangeScope(WireEnum):
    """Whom a range is there for."""

    GLOBAL = "global"
    USER = "user"


class BuildStatus(WireEnum):
    """How far a bundle or a depth dataset is."""

    COMPLETED = "completed"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    NEEDS_INVESTIGATION = "needs_investigation"


class DepthSource(WireEnum):
    """Where a depth dataset is sampled."""

    ONCHAIN = "onchain"
    ROUTER = "router"


class DepthGranularity(WireEnum):
    """How often a depth dataset is sampled; ``oracle`` is for ``onchain`` alone."""

    SLOT = "slot"
    ORACLE = "oracle"


MAX_PROGRAM_OVERRIDES = 8
MAX_ACCOUNT_OVERRIDES = 64
MAX_OVERRIDE_ELF_BYTES = 8 * 2**20
MAX_OVERRIDE_DATA_BYTES = 128 * 2**10

_KIND = choice(BundleKind)
_STATUS = choice(BuildStatus)
_SOURCE = choice(DepthSource)
_GRANULARITY = choice(DepthGranularity)


class RestValue(Value):
    """The base of REST bodies."""

    __slots__ = ()
    _camel: ClassVar[bool] = False


# --- ranges and bundles


@value_class
class AvailableRange(RestValue):
    """A bundle that sessions can run over. Unknown parts are ``None``; times are kept as text."""

    bundle_start_slot: int = wire(U64)
    bundle_start_slot_utc: str | None = wire(optional(TEXT), default=None)
    max_bundle_end_slot: int | None = wire(optional(U64), default=None)
    max_bundle_end_slot_utc: str | None = wire(optional(TEXT), default=None)
    max_bundle_size: int | None = wire(optional(U64), default=None)
    kind: BundleKind | None = wire(optional(_KIND), default=None)
    scope: RangeScope | None = wire(optional(choice(RangeScope)), default=None)


@value_class
class SlotRange(RestValue):
    """Slots ``start`` to ``end``, both inclusive."""

    start: int = wire(U64)
    end: int = wire(U64)

    @classmethod
    def from_count(cls, start: int, count: int) -> SlotRange:
        """``count`` slots from ``start``, as far as slots go; ``count`` is at least 1."""
        first, slots = to_u64(start, "start"), to_uint(count, "count", U64_MAX, minimum=1)
        return cls(first, min(first + slots - 1, U64_MAX))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        # of what is read, nothing is said: the service's ranges are taken as they come
        if self.start > self.end:
            raise InvalidParamsError(
                f"invalid range: start_slot {self.start} > end_slot {self.end}"
            )

    def __len__(self) -> int:
        return max(0, self.end - self.start + 1)

    def __str__(self) -> str:
        return f"{self.start}..={self.end}"


@value_class
class SnapshotSlot(RestValue):
    """The slot of the newest snapshot."""

    snapshot_slot: int = wire(U64)


@value_class
class BundleBuildRequest(RestValue):
    """Ask for a bundle. The same ``idempotency_key`` again gives the same build, charged once."""

    start_slot: int = wire(U64)
    end_slot: int = wire(U64)
    bundle_size: int | None = wire(optional(U64), default=None)
    idempotency_key: str | None = wire(optional(TEXT), default=None)
    kind: BundleKind = wire(_KIND, default=BundleKind.BLOCKS)


@value_class
class BundleBuildStatus(RestValue):
    """How far a build is; ``created_at_unix_ms`` in milliseconds, ``eta_secs`` in seconds."""

    request_id: str = wire(TEXT)
    start_slot: int = wire(U64)
    end_slot: int = wire(U64)
    status: BuildStatus = wire(_STATUS)
    created_at_unix_ms: int = wire(I64)
    bundle_size: int | None = wire(optional(U64), default=None)
    kind: BundleKind = wire(_KIND, default=BundleKind.BLOCKS)
    eta_secs: int | None = wire(optional(U64), default=None)


@value_class
class CompletedBundle(RestValue):
    """A bundle that the key owns."""

    start_slot: int = wire(U64)
    end_slot: int = wire(U64)
    kind: BundleKind = wire(_KIND)
    completed_at_unix_ms: int | None = wire(optional(I64), default=None)
    size_bytes: int | None = wire(optional(I64), default=None)


@value_class
class BundleBuildList(RestValue):
    """The key's builds, newest first, and its bundles (``None``: they could not be listed)."""

    builds: tuple[BundleBuildStatus, ...] = wire(list_of(struct(BundleBuildStatus)))
    bundles: tuple[CompletedBundle, ...] | None = wire(
        optional(list_of(struct(CompletedBundle))), default=None
    )


@value_class
class DeletedBundle(RestValue):
    """The bundle that was deleted."""

    start_slot: int = wire(U64)
    end_slot: int = wire(U64)
    kind: BundleKind = wire(_KIND)


# --- depth datasets


@value_class
class ProgramOverride(RestValue):
    """Another program's code for a depth run; ``elf`` is base64 of the ELF file."""

    program_id: str = wire(ADDRESS)
    elf: str = wire(BASE64)

    if TYPE_CHECKING:

        def __init__(self, program_id: AddressLike, elf: BinaryLike) -> None: ...


@value_class
class DepthRequest(RestValue):
    """Ask for a depth dataset over a range; no ``markets`` means all. Overrides: onchain only."""

    start_slot: int = wire(U64)
    end_slot: int = wire(U64)
    source: DepthSource = wire(_SOURCE, default=DepthSource.ONCHAIN)
    granularity: DepthGranularity = wire(
        _GRANULARITY, default=DepthGranularity.SLOT, omit=DepthGranularity.SLOT
    )
    markets: tuple[str, ...] = wire(list_of(TEXT), default=(), omit=())
    program_overrides: tuple[ProgramOverride, ...] = wire(
        list_of(struct(ProgramOverride)), default=(), omit=()
    )
    account_overrides: AccountModifications = wire(
        MODIFICATIONS, default=AccountModifications(), omit={}
    )

    if TYPE_CHECKING:

        def __init__(
            self,
            start_slot: int,
            end_slot: int,
            source: DepthSource | str = DepthSource.ONCHAIN,
            granularity: DepthGranularity | str = DepthGranularity.SLOT,
            markets: Iterable[str] = (),
            program_overrides: Iterable[ProgramOverride] = (),
            account_overrides: ModificationsLike = ...,
        ) -> None: ...

    def error(self) -> str | None:
        """Which of the service's limits the request breaks; ``None`` where it keeps them."""
        programs, accounts = self.program_overrides, self.account_overrides
        if self.source is not DepthSource.ONCHAIN:
            if programs or accounts:
                return f"overrides are for source onchain only, not {self.source.value}"
            if self.granularity is not DepthGranularity.SLOT:
                return f"granularity {self.granularity.value} is for source onchain only"
        if len(programs) > MAX_PROGRAM_OVERRIDES:
            return f"{len(programs)} program_overrides, at most {MAX_PROGRAM_OVERRIDES}"
        if len(accounts) > MAX_ACCOUNT_OVERRIDES:
            return f"{len(accounts)} account_overrides, at most {MAX_ACCOUNT_OVERRIDES}"
        elves = sum(len(b64decode(program.elf)) for program in programs)
        if elves > MAX_OVERRIDE_ELF_BYTES:
            return f"program_overrides of {elves} bytes, at most {MAX_OVERRIDE_ELF_BYTES} together"
        data = sum(len(account.bytes) for account in accounts.values())
        if data > MAX_OVERRIDE_DATA_BYTES:
            return f"account_overrides of {data} bytes, at most {MAX_OVERRIDE_DATA_BYTES} together"
        return None


@value_class
class DepthStatus(RestValue):
    """How far a depth dataset is; ``capture`` is its range, snapped outward to snapshots."""

    request_id: str = wire(TEXT)
    start_slot: int = wire(U64)
    end_slot: int = wire(U64)
    source: DepthSource = wire(_SOURCE)
    status: BuildStatus = wire(_STATUS)
    granularity: DepthGranularity = wire(
        _GRANULARITY, default=DepthGranularity.SLOT, omit=DepthGranularity.SLOT
    )
    capture: SlotRange | None = wire(optional(struct(SlotRange)), default=None, omit=None)
    modification_digest: str | None = wire(optional(TEXT), default=None, omit=None)


@value_class
class DepthSourceCoverage(RestValue):
    """What one source has sampled."""

    source: DepthSource = wire(_SOURCE)
    revision: int = wire(U16)
    markets: tuple[str, ...] = wire(list_of(TEXT))
    venues: tuple[str, ...] = wire(list_of(TEXT))
    size_rungs: int = wire(U64)
    completed_ranges: tuple[SlotRange, ...] = wire(list_of(struct(SlotRange)))


@value_class
class DepthCoverage(RestValue):
    """Which depth data there is."""

    sources: tuple[DepthSourceCoverage, ...] = wire(list_of(struct(DepthSourceCoverage)))


@value_class
class DatasetCredentials(RestValue):
    """Temporary read-only S3 credentials; ``expiration`` in UTC, if they expire."""

    access_key_id: str = wire(TEXT, secret=True)
    secret_access_key: str = wire(TEXT, secret=True)
    session_token: str = wire(TEXT, secret=True)
    s3_uri: str = wire(TEXT)
    expiration: datetime | None = wire(optional(TIME), default=None)
    user_s3_uri: str | None = wire(optional(TEXT), default=None, omit=None)
    region: str | None = wire(optional(TEXT), default=None)

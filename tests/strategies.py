"""Values for property-based tests: scalars, JSON, and every request and response."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from hypothesis import strategies as st

from backtest_sync import protocol as p
from backtest_sync.protocol.errors import _TABLE
from backtest_sync.protocol.fields import U8_MAX, U16_MAX, U32_MAX, U64_MAX, b58encode

# --- scalars

u8 = st.integers(0, U8_MAX)
u16 = st.integers(0, U16_MAX)
u32 = st.integers(0, U32_MAX)
u64 = st.integers(0, U64_MAX) | st.sampled_from([0, 2**53 + 1, 2**63, U64_MAX])
i64 = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
addresses = st.binary(min_size=32, max_size=32).map(b58encode)
uuids = st.uuids().map(lambda uuid: uuid.hex)
session_ids = uuids.map("backtest_{}".format)
control_ids = uuids.map("parallel_{}".format)
names = st.from_regex("[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(timezone.utc))


def json_values(max_leaves: int = 20) -> st.SearchStrategy[Any]:
    """Any JSON value."""
    scalars = (
        st.none()
        | st.booleans()
        | i64
        | u64
        | texts
        | st.floats(allow_nan=False, allow_infinity=False)
    )
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=max_leaves,
    )


# --- parts of values

encoded = st.binary(max_size=40).map(p.EncodedBinary)
transactions = st.binary(min_size=1, max_size=40)
accounts = st.builds(
    p.AccountData, st.binary(max_size=40), u64, addresses, st.booleans(), st.none() | u64
)
modifications = st.dictionaries(addresses, accounts, max_size=3).map(p.AccountModifications)
filters = st.builds(p.DiscoveryFilter.program_executed, addresses) | st.builds(
    p.DiscoveryFilter.oracle_update,
    st.lists(addresses, max_size=3),
    st.lists(addresses, max_size=3),
)
_slots = st.lists(u64, max_size=4)
anchors = (
    st.builds(p.ActionAnchor.before_slot, _slots)
    | st.builds(p.ActionAnchor.after_slot, _slots)
    | st.builds(p.ActionAnchor.before_every_slot, st.integers(1, U64_MAX))
    | st.builds(p.ActionAnchor.after_every_slot, st.integers(1, U64_MAX))
    | st.builds(p.ActionAnchor.before_match, filters)
    | st.builds(p.ActionAnchor.after_match, filters)
)
resolvers = st.just(p.TxResolver.quote_stamp()) | st.builds(
    p.TxResolver.liquidity_arrays,
    addresses,
    addresses,
    st.lists(u8, min_size=1, max_size=5, unique=True),
)
actions = st.builds(
    p.ScheduledAction,
    anchors,
    st.sampled_from(p.ActionKind),
    st.lists(transactions, max_size=3),
    modifications,
    st.booleans(),
    st.lists(addresses, max_size=3),
    st.none() | texts,
    st.none() | resolvers,
)
probes = st.builds(
    p.DiagnosticProbe,
    anchors,
    st.lists(addresses, max_size=3),
    st.lists(u32, max_size=3),
    st.none() | texts,
)
pairs = st.tuples(addresses, addresses)


@st.composite
def templates(draw: st.DrawFn) -> p.DirectFillTemplate:
    """Templates whose taker's slots are in order and whose accounts are flagged for them."""
    user, given, got, derived = draw(st.tuples(*[st.integers(1, 3)] * 3, st.integers(0, 2)))
    slots = iter(draw(st.permutations(range(user + given + got + derived))))
    roles = [[next(slots) for _ in range(count)] for count in (user, given, got, derived)]
    signers, writable = set(roles[0]), {*roles[1], *roles[2]}
    total = sum(map(len, roles))
    accounts = [
        p.TemplateAccount(draw(addresses), slot in writable, slot in signers)
        for slot in range(total)
    ]
    seeds = st.lists(
        st.just(p.TemplateSeed.user())
        | st.text(st.characters(codec="ascii"), max_size=32).map(p.TemplateSeed),
        min_size=1,
        max_size=4,
    )
    data = draw(st.binary(min_size=8, max_size=30))
    mints = draw(st.lists(addresses, min_size=2, max_size=2, unique=True))
    return p.DirectFillTemplate(
        draw(texts.filter(str.strip)),
        draw(st.sampled_from(p.SwapMode)),
        *mints,
        p.TemplateInstruction(draw(addresses), accounts, data),
        draw(st.integers(0, len(data) - 8)),
        p.TemplateTaker(
            *roles[:3],
            [p.DerivedAccount(draw(addresses), draw(seeds), roles[3])] if roles[3] else [],
        ),
    )


reroutes = st.builds(
    p.RerouteParams,
    st.lists(st.sampled_from(p.SwapAggregator)),
    st.none() | st.builds(p.RerouteFilter, st.lists(pairs, max_size=3)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(templates(), max_size=2),
    st.lists(addresses, max_size=3),
)
_ERROR_FIELDS = {
    "index": u64,
    "slot": u64,
    "start_slot": u64,
    "end_slot": u64,
    "encoding": st.just("base64"),
}


def _known_error(kind: p.ErrorKind) -> st.SearchStrategy[p.ErrorDetail]:
    _, names, _ = _TABLE[kind]
    fields = {name: _ERROR_FIELDS.get(name, texts) for name in names}
    return st.builds(p.ErrorDetail, st.just(kind), st.fixed_dictionaries(fields))


error_details = st.sampled_from(p.ErrorKind).flatmap(_known_error) | st.builds(
    p.ErrorDetail,
    texts.filter(lambda kind: kind not in set(p.ErrorKind)),
    st.dictionaries(texts.filter(bool), json_values(5), max_size=3),
)
_counts = st.dictionaries(texts, u64, max_size=3)
_template_stats = st.builds(p.TemplateStats, u64, _counts, u64, i64)
reroute_stats = st.builds(
    p.RerouteStats,
    swaps_detected=u64,
    direct_fill_outcomes=_counts,
    direct_fill_bps_total=i64,
    direct_fill_templates=st.dictionaries(texts, _template_stats, max_size=2),
    originals_bps_total=i64,
    dataset_uri=st.none() | texts,
)
summaries = st.builds(p.SessionSummary, u64, u64, u64, u64, u64, u64, st.none() | reroute_stats)

# --- messages

continues = st.builds(p.Continue, u64, st.lists(transactions, max_size=3), modifications)
continue_tos = st.builds(p.ContinueTo, u64, st.none() | u32)
creates = st.builds(
    p.CreateBacktestSession,
    u64,
    u64,
    st.booleans(),
    st.none() | reroutes,
    st.none() | u16,
    st.none() | u16,
    st.none() | u32,
    st.lists(filters, max_size=2),
    st.lists(actions, max_size=2),
    st.booleans(),
    st.lists(probes, max_size=2),
    st.none() | st.booleans(),
    st.none() | names,
    st.none() | texts,
)
requests = st.one_of(
    creates,
    continues,
    continue_tos,
    st.builds(p.ContinueSessionV1, session_ids, continues),
    st.builds(p.ContinueToSessionV1, session_ids, continue_tos),
    st.just(p.CloseBacktestSession()),
    st.builds(p.CloseSessionV1, session_ids),
    st.builds(p.AttachBacktestSession, session_ids, st.none() | u64),
    st.just(p.ResumeAttachedSession()),
    st.builds(
        p.AttachParallelControlSessionV2,
        control_ids,
        st.dictionaries(session_ids, u64, max_size=3),
    ),
)
_tasks = st.lists(st.none() | texts, max_size=3)
events = st.one_of(
    st.just(p.ReadyForContinue()),
    st.builds(p.SlotNotification, u64),
    st.builds(p.Paused, u64, st.none() | u32),
    st.builds(
        p.DiscoveryBatch,
        u64,
        u32,
        st.lists(filters, max_size=2),
        st.lists(encoded, max_size=3),
        st.lists(u32, max_size=3),
    ),
    st.builds(p.ErrorResponse, error_details),
    st.just(p.Success()),
    st.builds(p.Completed, st.none() | summaries),
    st.builds(p.StatusResponse, st.sampled_from(p.BacktestStatus) | texts),
    st.builds(p.UnknownResponse, texts.map("newer-{}".format), json_values(5)),
)
responses = st.one_of(
    events,
    st.builds(p.SessionCreated, session_ids, texts, st.none() | texts, st.none() | texts),
    st.builds(p.SessionAttached, session_ids, texts, st.none() | texts, st.none() | texts),
    st.builds(
        p.SessionsCreatedV2,
        control_ids,
        st.lists(session_ids, max_size=3),
        _tasks,
        st.lists(u64, max_size=3),
        st.lists(u64, max_size=3),
        st.none() | texts,
    ),
    st.builds(p.ParallelSessionAttachedV2, control_ids, st.lists(session_ids, max_size=3), _tasks),
    st.builds(p.SessionEventV2, session_ids, u64, events),
)

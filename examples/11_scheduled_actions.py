"""Let the server ask by itself: an action that fires before every fourth slot."""

from backtest_sync import ActionAnchor, CreateSession, ScheduledAction, connect_local
from backtest_sync.local import demo

AMOUNT = 10 * 10**9
probe = ScheduledAction(
    ActionAnchor.before_every_slot(4),
    transactions=[demo.swap_transaction(demo.ALICE, sells_base=True, amount_in=AMOUNT)],
    label="ten base tokens",
)

with (
    connect_local() as client,
    client.create_session(
        CreateSession(start_slot=demo.FIRST_SLOT, slot_count=40, actions=[probe])
    ) as session,
):
    session.ensure_ready()
    results = session.subscribe_actions()
    session.run()
    for result in results:
        (outcome,) = result.transaction_outcomes
        (swap,) = demo.pool_swaps(outcome.logs)
        print(f"slot {result.slot}, {result.label}: {swap.amount_out / 10**6:.4f} quote tokens")

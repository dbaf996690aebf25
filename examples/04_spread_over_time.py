"""What a round trip through the pool costs, block by block: quote → base → quote, in bps."""

from backtest_sync import connect_local
from backtest_sync.local import demo

SIZE = 50_000 * 10**6  # quote tokens
BLOCKS = 10
TOUCHED = [demo.POOL, demo.BASE_VAULT, demo.QUOTE_VAULT, demo.BOB.base, demo.BOB.quote]


def try_swap(session, state, *, sells_base: bool, amount: int):
    """What a swap on top of ``state`` would pay, and the state after it."""
    result = session.rpc.simulate_transaction(
        demo.swap_transaction(demo.BOB, sells_base=sells_base, amount_in=amount),
        accounts=TOUCHED,
        modify_account_states=state,
    )
    (swap,) = demo.pool_swaps(result.logs)
    after = {
        address: account.to_account_data()
        for address, account in zip(TOUCHED, result.accounts, strict=True)
    }
    return swap.amount_out, after


with (
    connect_local() as client,
    client.create_session(start_slot=demo.FIRST_SLOT, slot_count=60) as session,
):
    session.ensure_ready()
    print("slot,quote_in,base_out,quote_back,spread_bps")
    for _ in range(BLOCKS):
        slot = session.advance(1).last_slot
        base, state = try_swap(session, {}, sells_base=False, amount=SIZE)
        back, _ = try_swap(session, state, sells_base=True, amount=base)
        spread = (SIZE - back) / SIZE * 10_000
        print(f"{slot},{SIZE / 10**6:.0f},{base / 10**9:.6f},{back / 10**6:.6f},{spread:.2f}")

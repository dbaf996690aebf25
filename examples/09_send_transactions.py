"""Put transactions of one's own into the replayed chain: with a ``Continue``, and by RPC."""

from backtest_sync import Continue, connect_local
from backtest_sync.local import demo

with (
    connect_local() as client,
    client.create_session(start_slot=demo.FIRST_SLOT, slot_count=20) as session,
):
    session.ensure_ready()

    # with a Continue: it runs after the block's own transactions
    before = session.rpc.get_token_account_balance(demo.ALICE.base)
    order = demo.swap_transaction(demo.ALICE, sells_base=True, amount_in=10**9)
    session.continue_until_ready(Continue(advance_count=1, transactions=[order]))
    after = session.rpc.get_token_account_balance(demo.ALICE.base)
    print(f"alice: {before.ui_amount_string} → {after.ui_amount_string} base tokens")

    # by RPC: it runs at once, signed or not
    order = demo.swap_transaction(demo.BOB, sells_base=True, amount_in=2 * 10**9)
    signature = session.rpc.send_transaction(order)
    transaction = session.rpc.get_transaction(signature)
    (swap,) = demo.pool_swaps(transaction.logs)
    print(f"bob sold {swap.amount_in / 10**9} base for {swap.amount_out / 10**6} quote tokens")
    print(f"in slot {transaction.slot}, for {transaction.compute_units} compute units")

    # a transaction that fails is an answer, too
    greedy = demo.swap_transaction(demo.BOB, sells_base=True, amount_in=10**9, least_out=10**12)
    print("asking for too much:", session.rpc.simulate_transaction(greedy).err)

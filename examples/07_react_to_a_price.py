"""A strategy: pause behind each price update, and buy where the pool still sells below the new price."""

from backtest_sync import DiscoveryFilter, connect_local
from backtest_sync.local import demo

AMOUNT = 5_000 * 10**6  # quote tokens for each purchase

with (
    connect_local() as client,
    client.create_session(
        start_slot=demo.FIRST_SLOT,
        end_slot=demo.RANGE_STARTS[1] - 1,
        discoveries=[DiscoveryFilter.oracle_update([demo.MAKER_PROGRAM], [demo.PRICE_ACCOUNT])],
    ) as session,
):
    updates = purchases = bought = 0
    # offset 1: the batch with the update has just run
    while session.advance_to_discovery(60, offset=1) is not None:
        updates += 1
        watched = [demo.PRICE_ACCOUNT, demo.BASE_VAULT, demo.QUOTE_VAULT]
        price, base, quote = session.rpc.get_multiple_accounts(watched)
        published = demo.read_price(price.data).price / 10**6
        reserves = demo.token_amount(quote.data), demo.token_amount(base.data)
        out = demo.amount_out(AMOUNT, *reserves, demo.FEE_BPS[1])
        asked = (AMOUNT / 10**6) / (out / 10**9)  # for one base token, fee and impact included
        if asked >= published:
            continue
        order = demo.swap_transaction(demo.BOB, sells_base=False, amount_in=AMOUNT, least_out=out)
        done = session.rpc.get_transaction(session.rpc.send_transaction(order))
        (swap,) = demo.pool_swaps(done.logs)
        purchases += 1
        bought += swap.amount_out
        got = swap.amount_out / 10**9
        print(f"slot {done.slot}: the price is {published:.4f}, bought {got:.4f} at {asked:.4f}")

print(f"{updates} price updates, {purchases} purchases, {bought / 10**9:.4f} base tokens")

"""How recorded swaps would have fared later: capture some, simulate them again block by block."""

from backtest_sync import connect_local
from backtest_sync.local import demo

CAPTURED = 3
BLOCKS = 6
TRADERS = {trader.address: trader for trader in (demo.ALICE, demo.BOB)}


def capture(session):
    """The first swaps of the range: who, and what."""
    session.ensure_ready()
    transactions = session.subscribe_transactions(demo.POOL_PROGRAM)
    session.run()
    swaps = []
    for transaction in transactions:
        payer = transaction.raw["transaction"]["message"]["accountKeys"][0]
        swaps += [(TRADERS[payer], swap) for swap in demo.pool_swaps(transaction.logs)]
    return swaps[:CAPTURED]


with connect_local() as client:
    with client.create_session(start_slot=demo.FIRST_SLOT, slot_count=4) as session:
        captured = capture(session)

    print("swap,original_slot,original_out,simulated_slot,simulated_out,change_bps")
    with client.create_session(start_slot=demo.FIRST_SLOT, slot_count=30) as session:
        session.ensure_ready()
        for _ in range(BLOCKS):
            slot = session.advance(1).last_slot
            for number, (trader, swap) in enumerate(captured):
                again = demo.swap_transaction(
                    trader, sells_base=swap.sells_base, amount_in=swap.amount_in
                )
                (now,) = demo.pool_swaps(session.rpc.simulate_transaction(again).logs)
                change = (now.amount_out - swap.amount_out) / swap.amount_out * 10_000
                print(
                    f"{number},{demo.FIRST_SLOT},{swap.amount_out},{slot},{now.amount_out},{change:+.1f}"
                )

"""Stop before each recorded swap and ask what a swap of one's own would get at that very moment."""

from itertools import islice

from backtest_sync import DiscoveryFilter, connect_local
from backtest_sync.local import demo

PAUSES = 8
AMOUNT = 10 * 10**9  # ten base tokens

with (
    connect_local() as client,
    client.create_session(
        start_slot=demo.FIRST_SLOT,
        slot_count=60,
        discoveries=[DiscoveryFilter.program_executed(demo.POOL_PROGRAM)],
    ) as session,
):
    own = demo.swap_transaction(demo.ALICE, sells_base=True, amount_in=AMOUNT)
    print("slot,batch,quote_out,compute_units")
    for pause in islice(session.discoveries(timeout=60), PAUSES):
        # nothing of the discovered batch has run yet: this is the state that its swap will meet
        result = session.rpc.simulate_transaction(own)
        (swap,) = demo.pool_swaps(result.logs)
        where = f"{pause.paused.slot},{pause.paused.batch_index}"
        print(f"{where},{swap.amount_out / 10**6:.6f},{result.units_consumed}")

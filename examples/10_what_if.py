"""Counterfactuals at a pause: change an account, look, and put it back before going on."""

import struct

from backtest_sync import AccountData, connect_local
from backtest_sync.local import demo

with (
    connect_local() as client,
    client.create_session(start_slot=demo.FIRST_SLOT, slot_count=60) as session,
):
    session.ensure_ready()
    paused = session.continue_to(demo.FIRST_SLOT + 20, 2)
    print(f"paused in slot {paused.slot} before batch {paused.batch_index}")

    order = demo.swap_transaction(demo.ALICE, sells_base=True, amount_in=100 * 10**9)

    def quoted() -> float:
        """What the order would get now, in quote tokens."""
        (swap,) = demo.pool_swaps(session.rpc.simulate_transaction(order).logs)
        return swap.amount_out / 10**6

    vault = session.rpc.get_account_info(demo.QUOTE_VAULT)
    print(f"as it is:                {quoted():.4f}")

    half = struct.pack("<Q", demo.token_amount(vault.data) // 2)
    drained = AccountData(vault.data[:64] + half + vault.data[72:], vault.lamports, vault.owner)
    session.rpc.modify_accounts({demo.QUOTE_VAULT: drained})
    print(f"with half the liquidity: {quoted():.4f}")

    session.rpc.modify_accounts({demo.QUOTE_VAULT: vault.to_account_data()})
    print(f"put back:                {quoted():.4f}")

    print("completed:", session.run().completed)

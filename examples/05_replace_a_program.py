"""Run the same blocks twice, the second time with another version of a program, and compare."""

from backtest_sync import connect_local
from backtest_sync.local import demo, programs


def outcome(client, new_elf: bytes | None) -> dict[str, list[demo.Swap]]:
    """The swaps of each transaction of the pool, by signature."""
    swaps = {}
    with client.create_session(start_slot=demo.FIRST_SLOT, end_slot=demo.LAST_SLOT) as session:
        session.ensure_ready()
        session.subscribe_program_logs(
            demo.POOL_PROGRAM,
            on_notification=lambda note: swaps.update(
                {note.value.signature: demo.pool_swaps(note.value.logs)}
            ),
        )
        if new_elf is not None:
            changed = session.modify_program(demo.POOL_PROGRAM, new_elf)
            session.continue_(1, modify_accounts=changed)
        session.run()
    return swaps


with connect_local() as client:
    baseline = outcome(client, None)
    lower_fee = outcome(client, programs.elf("pool_v2"))

better = worse = 0
for signature, before in baseline.items():
    for old, new in zip(before, lower_fee[signature], strict=True):
        better += new.amount_out > old.amount_out
        worse += new.amount_out < old.amount_out
print(f"{len(baseline)} transactions: {better} swaps got more, {worse} got less")

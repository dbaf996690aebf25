"""The whole life of a backtest: every transaction of a program goes into a log file.

Subscribe before the first block runs; read more about each transaction while the session lives;
close; write.
"""

from pathlib import Path

from backtest_sync import connect_local
from backtest_sync.local import demo

SLOTS = 32


def record(transaction, logs: tuple[str, ...]) -> str:
    """One transaction as text: outcome, logs, and who gained or lost lamports."""
    status = "OK" if transaction.err is None else f"FAIL {transaction.err}"
    lines = [f"slot={transaction.slot} sig={transaction.signature} status={status}"]
    lines += [f"    {line}" for line in logs]
    meta = transaction.raw["meta"]
    keys = transaction.raw["transaction"]["message"]["accountKeys"]
    loaded = meta["loadedAddresses"]
    for key, before, after in zip(
        [*keys, *loaded["writable"], *loaded["readonly"]],
        meta["preBalances"],
        meta["postBalances"],
        strict=True,
    ):
        if before != after:
            lines.append(f"  sol  {key}  {before / 1e9:.9f} → {after / 1e9:.9f}")
    return "\n".join(lines)


with (
    connect_local() as client,
    client.create_session(start_slot=demo.FIRST_SLOT, slot_count=SLOTS) as session,
):
    session.ensure_ready(timeout=60)
    seen = []
    session.subscribe_program_logs(demo.POOL_PROGRAM, on_notification=seen.append)
    session.run()  # comes back when the last notification is there

    # closing the session destroys what its RPC can tell
    transactions = [session.rpc.get_transaction(note.value.signature) for note in seen]

output = Path("pool.log")
output.write_text(
    "\n\n".join(record(tx, note.value.logs) for tx, note in zip(transactions, seen, strict=True))
)
failed = sum(note.value.err is not None for note in seen)
fees = sum(tx.fee for tx in transactions)
print(f"{len(seen)} transactions, {failed} failed, {fees / 1e9:.6f} SOL in fees → {output}")

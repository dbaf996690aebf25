"""The shortest backtest: replay some recorded slots, look at the chain on the way."""

from backtest_sync import connect_local

with (
    connect_local() as client,
    client.create_session(start_slot=400_000_000, slot_count=50, send_summary=True) as session,
):
    session.ensure_ready()
    print("ready at slot", session.rpc.get_slot())

    step = session.advance(10)
    print(f"ten blocks on, at slot {step.last_slot}")

    run = session.run()
    print(f"{run.slots} more blocks, to slot {run.last_slot}; completed: {run.completed}")
    print(run.summary)

"""Leave a session running on the server and go on with it in another process.

What is needed for that: the session's id and the last sequence that was handed out.
"""

import subprocess
import sys

from backtest_sync import BacktestClient, connect_local
from backtest_sync.local import demo


def go_on(url: str, session_id: str, last_sequence: str) -> None:
    """The second process."""
    with (
        BacktestClient(url) as client,
        client.attach_session(session_id, int(last_sequence)) as session,
    ):
        # subscriptions would be made again here, before the session is let go on
        session.resume_attached_session()
        run = session.run()
        print(f"the second process saw {run.slots} blocks, to slot {run.last_slot}")


def main() -> None:
    """The first process."""
    with connect_local() as client:
        session = client.create_session(
            start_slot=demo.FIRST_SLOT, slot_count=40, disconnect_timeout_secs=60
        )
        session.ensure_ready()
        step = session.advance(5)
        print(f"the first process saw {step.slot_notifications} blocks, to slot {step.last_slot}")
        session.abort()  # as a crash would: no goodbye
        arguments = [client.url, session.session_id, str(session.last_sequence)]
        sys.stdout.flush()
        subprocess.run([sys.executable, __file__, *arguments], check=True)


if len(sys.argv) > 1:
    go_on(*sys.argv[1:])
else:
    main()

"""What two traders gained or lost in a range, from the changes of their token accounts."""

from collections import defaultdict

from backtest_sync import connect_local
from backtest_sync.local import demo

UNITS = {"base": 10**9, "quote": 10**6}
OWNERS = {
    demo.ALICE.base: ("alice", "base"),
    demo.ALICE.quote: ("alice", "quote"),
    demo.BOB.base: ("bob", "base"),
    demo.BOB.quote: ("bob", "quote"),
}

with (
    connect_local() as client,
    client.create_session(start_slot=demo.FIRST_SLOT, end_slot=demo.LAST_SLOT) as session,
):
    session.ensure_ready()
    diffs = session.subscribe_account_diffs(list(OWNERS))
    session.run()
    changes = defaultdict(list)
    for diff in diffs:
        change = demo.token_amount(diff.post.data) - demo.token_amount(diff.pre.data)
        changes[OWNERS[diff.account]].append(change)
    price = demo.read_price(session.rpc.get_account_info(demo.PRICE_ACCOUNT).data).price

print(f"{'':8}{'token':8}{'changes':>8}{'net':>18}")
result = defaultdict(float)
for (owner, token), deltas in sorted(changes.items()):
    net = sum(deltas) / UNITS[token]
    result[owner] += net * price / UNITS["quote"] if token == "base" else net
    print(f"{owner:8}{token:8}{len(deltas):>8}{net:>+18,.4f}")
print(f"in quote tokens, a base token at {price / UNITS['quote']:.4f}:")
for owner, value in result.items():
    print(f"{owner:8}{value:>+34,.4f}")

"""Who is who in the demo bundle, and what its pool computes.

Addresses come from seeds (local/demo_world.py) and stand here so that nothing needs solders to
name them. The programs are described in local/programs/.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from typing import Any

from attrs import frozen

FIRST_SLOT = 400_000_000
LAST_SLOT = 400_000_191
#: Starts of the three ranges, 64 slots each; the last one also holds recorded account state.
RANGE_STARTS = (400_000_000, 400_000_064, 400_000_128)

#: 9 decimals, priced in the quote token.
BASE_MINT = "D2oYS7itV87BcnS3wwu2wgjnjMfKYAFfsb7fNXjRDBFR"
#: 6 decimals.
QUOTE_MINT = "FD35qP35KbPKN43AtWkguNjSAyF7bmU78Ueo3VwiADDc"

POOL_PROGRAM = "GzJ5KUBiQbAoThUq2TJa78QyCX5FbXA2P2bYGCJXjFx1"
POOL_PROGRAM_DATA = "8k32zGFpiu2wwQoU2hvt6MQEcXPMrTGRLgg8ubgkFdZF"
POOL = "ENDCWadQq7gPfKfHhE2JZtHduLbRABCWkyUwbpHP2tei"
BASE_VAULT = "Enbz3E5ByVzz5z3rTz1kw6Bq8V1sS76aYAXtbudqzk8W"
QUOTE_VAULT = "JDMRvjTG38gpAzniA7tiU8by2NP45d3En3m2y8c5aya8"
#: Fees of the pool program's two versions, in bps. The bundle has version 1.
FEE_BPS = {1: 30, 2: 5}

MAKER_PROGRAM = "CvMmbKZhB2THSTijChBi99cDoQwq2C2kfDx46J8pV2Sx"
MAKER = "H2XSqbyYRKH9jvegAXDJKijRwqvhH6VA6qLodxD9juFS"
PRICE_ACCOUNT = "HmwoG3jz5hTWYYubMvqqZno9nWbVDNjH9JMVBkFfvtA4"

LOOKUP_TABLE = "47o78R4VdrVPNMRu5HwfBE9WBakGF5aXDFePw3Rrd6Nx"
UPGRADE_AUTHORITY = "9RkE8Dj8HfNbBfXxX1ipKM5zVN2F2rPnnsSPUzHduMCr"
TOKEN_PROGRAM = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"  # noqa: S105


@frozen
class Trader:
    """A user of the pool with its token accounts."""

    address: str
    base: str
    quote: str


ALICE = Trader(
    "3Q6e9GeRnKpEPJBJoMzE1Sa93cEHQMH8x3VMnBp7YNAD",
    "3KP6siKozuPTaSRSeFeozohNvmjeBEHYWUBeYiueex3W",
    "BqmCBXZhJgra4gfEjsXbCHvcHujwPoBfBmcwURvYF4wy",
)
BOB = Trader(
    "5sDQRYC5vieQXPz2vYXUduajCePhKFFQKFUHKH5pCed7",
    "BmCs1W6YjdQ8gL7ma5ChYWKWqcShF4HTeB4dwhiwSrBJ",
    "4LuCbAt8qJbjaArCUEWQnmMRApKENXREHetw7Xmknxzp",
)

SWAP_MARK = b"poolswap"
_EVENT = struct.Struct("<8s5Q")
_SWAP = struct.Struct("<BQQ")
_PRICE = struct.Struct("<32xQQQqQ")
_AMOUNT = struct.Struct("<64xQ")


@frozen
class Swap:
    """A swap as the pool logs it. Amounts in base units; reserves are those after it."""

    sells_base: bool
    amount_in: int
    amount_out: int
    reserve_in: int
    reserve_out: int


@frozen
class Price:
    """What the price account holds: quote units for one whole base token, and who wrote it when."""

    price: int
    confidence: int
    slot: int
    unix_time: int
    updates: int


def pool_swaps(logs: Iterable[str]) -> list[Swap]:
    """The swaps in a transaction's log lines."""
    found = []
    for line in logs:
        if not line.startswith("Program data: "):
            continue
        data = base64.b64decode(line.removeprefix("Program data: ").split(" ")[0])
        if len(data) == _EVENT.size and data.startswith(SWAP_MARK):
            _, direction, *amounts = _EVENT.unpack(data)
            found.append(Swap(direction == 0, *amounts))
    return found


def amount_out(amount_in: int, reserve_in: int, reserve_out: int, fee_bps: int) -> int:
    """What the pool pays for ``amount_in``, all in base units: the sum that the program does."""
    net = amount_in * (10_000 - fee_bps) // 10_000
    return reserve_out * net // (reserve_in + net)


def token_amount(data: bytes) -> int:
    """The amount, in base units, that the data of an SPL token account holds."""
    return int(_AMOUNT.unpack_from(data)[0])


def read_price(data: bytes) -> Price:
    """What the data of the price account holds."""
    return Price(*_PRICE.unpack_from(data))


def swap_data(amount_in: int, least_out: int = 0) -> bytes:
    """Instruction data of a swap."""
    return _SWAP.pack(0, amount_in, least_out)


def swap_instruction(
    trader: Trader, *, sells_base: bool, amount_in: int, least_out: int = 0
) -> Any:
    """A swap on the demo's pool, as a solders ``Instruction``."""
    from solders.instruction import AccountMeta, Instruction
    from solders.pubkey import Pubkey

    pays, gets = (trader.base, trader.quote) if sells_base else (trader.quote, trader.base)
    takes, gives = (BASE_VAULT, QUOTE_VAULT) if sells_base else (QUOTE_VAULT, BASE_VAULT)
    accounts = [
        (POOL, False, True),
        (trader.address, True, False),
        (pays, False, True),
        (gets, False, True),
        (takes, False, True),
        (gives, False, True),
        (TOKEN_PROGRAM, False, False),
    ]
    return Instruction(
        Pubkey.from_string(POOL_PROGRAM),
        swap_data(amount_in, least_out),
        [AccountMeta(Pubkey.from_string(key), s, w) for key, s, w in accounts],
    )


def swap_transaction(
    trader: Trader, *, sells_base: bool, amount_in: int, least_out: int = 0
) -> bytes:
    """An unsigned swap transaction in wire format: what a session simulates and executes."""
    from solders.hash import Hash
    from solders.message import MessageV0
    from solders.pubkey import Pubkey
    from solders.signature import Signature
    from solders.transaction import VersionedTransaction

    instruction = swap_instruction(
        trader, sells_base=sells_base, amount_in=amount_in, least_out=least_out
    )
    payer = Pubkey.from_string(trader.address)
    message = MessageV0.try_compile(payer, [instruction], [], Hash.default())
    return bytes(VersionedTransaction.populate(message, [Signature.default()]))

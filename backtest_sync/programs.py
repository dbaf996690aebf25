"""Replacing the code of an upgradeable program during a run (protocol/programs.md §1).

An upgradeable program keeps its code in a second account, ProgramData: a header of 45 bytes, then the ELF.
`modify_program` builds that account anew around another ELF; nothing is changed until the result goes into
the ``modify_accounts`` of a ``Continue``.
"""

from __future__ import annotations

import hashlib
import os
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from backtest_sync.errors import (
    BacktestClientError,
    InvalidParamsError,
    ProgramModError,
    shorten,
)
from backtest_sync.limits import Deadline
from backtest_sync.protocol.accounts import AccountData
from backtest_sync.protocol.fields import address_bytes, b58encode, shown, to_address, to_u64

if TYPE_CHECKING:
    from backtest_sync.protocol.accounts import Account
    from backtest_sync.protocol.fields import AddressLike
    from backtest_sync.rpc import RpcClient

#: The loader that owns upgradeable programs and their ProgramData accounts.
UPGRADEABLE_LOADER = "BPFLoaderUpgradeab1e11111111111111111111111"
#: What precedes the ELF in a ProgramData account: variant, deploy slot, authority.
HEADER = struct.Struct("<IQB32s")
#: The loader's limit for a program. In base64 it stays below the server's 16 MiB for a message.
MAX_ELF_BYTES = 10 * 1024 * 1024
#: The pauses before the state is asked for again after a failure, in seconds; each is multiplied by a
#: random number between 0 and 1.
RETRY_PAUSES = (1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0)
#: No further attempt begins after this long, in seconds.
RETRY_LIMIT = 120.0

_PROGRAM_DATA = 3  # the loader's state of a ProgramData account
_ELF_MAGIC = b"\x7fELF"

# ed25519: y² - x² = 1 + d x² y² modulo p
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P


def program_data_address(program_id: AddressLike) -> str:
    """The address of the account that holds an upgradeable program's code."""
    program = _program_id(program_id)
    seed = address_bytes(program)
    loader = address_bytes(UPGRADEABLE_LOADER)
    for bump in range(255, -1, -1):
        derived = hashlib.sha256(
            b"".join((seed, bytes([bump]), loader, b"ProgramDerivedAddress"))
        ).digest()
        if not is_on_curve(derived):
            return b58encode(derived)
    raise InvalidParamsError(f"program_id: {program} has no ProgramData address")


def is_on_curve(point: bytes) -> bool:
    """Whether 32 bytes are a point of ed25519, so that somebody may hold a key to them."""
    # x² = (y² - 1) / (d y² + 1) has a root where the fraction is a square, or zero; the top bit is the root's sign
    y2 = pow(int.from_bytes(point, "little") & (2**255 - 1), 2, _P)
    fraction = (y2 - 1) * (_D * y2 + 1)
    return pow(fraction, (_P - 1) // 2, _P) != _P - 1


def build_programdata_bytes(
    elf: bytes | bytearray | memoryview, deploy_slot: int, authority: AddressLike | None = None
) -> bytes:
    """The data of a ProgramData account: the 45-byte header, which the loader always expects, and the ELF.

    ``authority`` is who may upgrade the program, ``None`` for nobody.
    """
    if not isinstance(elf, (bytes, bytearray, memoryview)):
        raise InvalidParamsError(f"elf: expected the file's bytes, got {shown(elf)}")
    slot = to_u64(deploy_slot, "deploy_slot")
    key = bytes(32) if authority is None else address_bytes(to_address(authority, "authority"))
    return b"".join((HEADER.pack(_PROGRAM_DATA, slot, authority is not None, key), elf))


def build_program_injection(
    address: AddressLike,
    elf: bytes | bytearray | memoryview,
    deploy_slot: int,
    authority: AddressLike | None,
    lamports: int,
) -> dict[str, AccountData]:
    """``{address: account}`` with another program's code, for ``modify_accounts``.

    ``address`` is the ProgramData address (`program_data_address`). ``deploy_slot`` must lie before the slot
    that runs the new code; without RPC take the session's first slot less one.
    """
    account = AccountData(
        data=build_programdata_bytes(elf, deploy_slot, authority),
        lamports=lamports,
        owner=UPGRADEABLE_LOADER,
    )
    return {to_address(address, "address"): account}


def modify_program(
    rpc: RpcClient,
    program_id: AddressLike,
    elf: bytes | bytearray | memoryview | str | os.PathLike[str],
) -> dict[str, AccountData]:
    """The account that gives an upgradeable program another ELF: ``{ProgramData address: account}``.

    Reads slot, upgrade authority (kept) and rent from the session's endpoint, so call it once the session is
    ready. What fails there, a missing account included, is tried again ten times, over some 40 s.
    ``elf`` is the file's bytes or its path.
    Raises `InvalidParamsError` (no address, no ELF, too large) and `ProgramModError`.
    """
    program = _program_id(program_id)
    address = program_data_address(program)
    code = _elf(elf)
    size = HEADER.size + len(code)
    limit = Deadline(RETRY_LIMIT)
    pauses = iter(RETRY_PAUSES)
    while True:
        try:
            slot, authority, lamports = _read_state(rpc, address, size)
            break
        except (BacktestClientError, LookupError) as error:
            pause = next(pauses, None)
            # the jitter spreads clients; rpc.pause ends early when the session is closed
            if pause is None or limit.expired or not rpc.pause(pause * random.random()):  # noqa: S311
                raise ProgramModError(f"RPC error: {error}", program_id=program) from error
    # in the slot it was deployed in a program does not run yet
    return build_program_injection(address, code, max(slot - 1, 0), authority, lamports)


def _read_state(rpc: RpcClient, address: str, size: int) -> tuple[int, str | None, int]:
    """Slot, upgrade authority and rent: what the new account depends on."""
    slot = rpc.get_slot()
    account = rpc.get_account_info(address)
    if account is None:
        raise LookupError(f"its ProgramData account {address} does not exist; is it upgradeable?")
    return slot, _authority(account), rpc.get_minimum_balance_for_rent_exemption(size)


def _authority(account: Account) -> str | None:
    data = account.data
    has_authority = len(data) >= HEADER.size and data[12] == 1
    return b58encode(data[13 : HEADER.size]) if has_authority else None


def _program_id(value: AddressLike) -> str:
    try:
        return to_address(value, "program_id")
    except InvalidParamsError as error:
        text = value if isinstance(value, str) else shown(value)
        raise InvalidParamsError(f"invalid program id `{shorten(text, 100)}`") from error


def _elf(elf: bytes | bytearray | memoryview | str | os.PathLike[str]) -> bytes | memoryview:
    """The ELF's bytes, uncopied where the caller has them."""
    if isinstance(elf, (str, os.PathLike)):
        name = f"elf: {os.fspath(elf)}"
        try:
            with Path(elf).open("rb") as file:
                code: bytes | memoryview = file.read(MAX_ELF_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidParamsError(f"{name} can't be read: {reason}") from error
    else:
        name = "elf"
        try:
            code = memoryview(elf).cast("B")
        except TypeError as error:
            raise InvalidParamsError(
                f"elf: expected bytes or a path, got {type(elf).__name__}"
            ) from error
    if bytes(code[:4]) != _ELF_MAGIC:
        raise InvalidParamsError(
            f"{name} is no ELF file: it begins with {bytes(code[:4])!r}; expected the built .so"
        )
    if len(code) > MAX_ELF_BYTES:
        raise InvalidParamsError(
            f"{name} is larger than the {MAX_ELF_BYTES} bytes (10 MiB) that the loader takes"
        )
    return code

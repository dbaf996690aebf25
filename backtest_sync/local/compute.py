"""The extra compute units of a session (protocol/control.md §4.1)."""

from __future__ import annotations

import struct
from typing import Any

from solders.instruction import CompiledInstruction
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

_COMPUTE_BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
_SET_LIMIT = struct.Struct("<BI")
_SET_LIMIT_TAG = 2
_MAX_U32 = 2**32 - 1


def with_extra_units(transaction: VersionedTransaction, extra: int) -> VersionedTransaction:
    """The transaction with ``extra`` units on top of the limit that it sets.

    The same object where it sets none. Its signatures stay as they are: they are not checked.
    """
    message: Any = transaction.message
    keys = message.account_keys
    raised = [_raise(keys, instruction, extra) for instruction in message.instructions]
    if raised == message.instructions:
        return transaction
    header, blockhash = message.header, message.recent_blockhash
    if isinstance(message, MessageV0):
        lookups = message.address_table_lookups
        message = MessageV0(header, keys, blockhash, raised, lookups)
    else:
        message = Message.new_with_compiled_instructions(
            header.num_required_signatures,
            header.num_readonly_signed_accounts,
            header.num_readonly_unsigned_accounts,
            keys,
            blockhash,
            raised,
        )
    return VersionedTransaction.populate(message, transaction.signatures)


def _raise(keys: list[Pubkey], instruction: CompiledInstruction, extra: int) -> CompiledInstruction:
    data = bytes(instruction.data)
    if (
        len(data) != _SET_LIMIT.size
        or data[0] != _SET_LIMIT_TAG
        or keys[instruction.program_id_index] != _COMPUTE_BUDGET
    ):
        return instruction
    _, limit = _SET_LIMIT.unpack(data)
    data = _SET_LIMIT.pack(_SET_LIMIT_TAG, min(limit + extra, _MAX_U32))
    return CompiledInstruction(instruction.program_id_index, data, instruction.accounts)

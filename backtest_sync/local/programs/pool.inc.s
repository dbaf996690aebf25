# A constant-product pool of two SPL Token accounts ("vaults"). What the versions share;
# pool_v1.s and pool_v2.s set FEE_BPS and include this file.
#
# Swap: instruction data is tag 0 (u8), amount in (u64), least amount out (u64), little endian.
#   accounts  0 pool state (writable)         4 vault that receives (writable)
#             1 user (signer)                 5 vault that pays (writable)
#             2 user's source (writable)      6 SPL Token program
#             3 user's destination (writable)
#   net = amount in * (10000 - FEE_BPS) / 10000      out = reserve out * net / (reserve in + net)
#   both rounded down; the whole amount in goes to the vault, so the fee stays in the pool.
#
# State (80 bytes, owned by this program, at the PDA of the seeds "pool", bump):
#   0 vault A (32)   32 vault B (32)   64 swaps so far (u64)   72 bump (u8)   73 zero (7)
#
# A swap logs "Instruction: Swap", then as data: "poolswap", direction (u64, 0: A in, 1: B in), amount in,
# amount out, reserve in and reserve out after it (u64 each); it returns the amount out (u64).
# Errors: 6000 wrong accounts, 6001 less out than asked for, 6002 nothing to trade,
#         6003 not a swap instruction, 6004 reserves too large.

.equ ACCOUNTS, 7
.equ INFO_SIZE, 56
.equ STATE_SIZE, 80
.equ SWAP_DATA_SIZE, 17
.equ TOKEN_AMOUNT, 64

# SolAccountInfo, the C shape that sol_invoke_signed_c takes
.equ KEY, 0
.equ LAMPORTS, 8
.equ DATA_LEN, 16
.equ DATA, 24
.equ OWNER, 32
.equ RENT_EPOCH, 40
.equ IS_SIGNER, 48
.equ IS_WRITABLE, 49
.equ EXECUTABLE, 50

# the entry point's stack frame
.equ INFOS, -392
.equ AMOUNT_IN, -400
.equ AMOUNT_OUT, -408
.equ DIRECTION, -416
.equ EVENT, -464
.equ SLICE, -480
.equ RETURN, -488

.globl entrypoint

entrypoint:
  ldxdw r2, [r1+0]
  jne r2, ACCOUNTS, wrong_accounts
  mov64 r6, r1
  add64 r6, 8
  mov64 r9, r10
  add64 r9, INFOS
  mov64 r7, r9
  mov64 r8, ACCOUNTS
next_account:
  ldxb r2, [r6+0]
  jne r2, 0xff, wrong_accounts            # the same account twice
  ldxb r3, [r6+1]
  stxb [r7+IS_SIGNER], r3
  ldxb r3, [r6+2]
  stxb [r7+IS_WRITABLE], r3
  ldxb r3, [r6+3]
  stxb [r7+EXECUTABLE], r3
  mov64 r2, r6
  add64 r2, 8
  stxdw [r7+KEY], r2
  add64 r2, 32
  stxdw [r7+OWNER], r2
  add64 r2, 32
  stxdw [r7+LAMPORTS], r2
  ldxdw r3, [r2+8]
  stxdw [r7+DATA_LEN], r3
  add64 r2, 16
  stxdw [r7+DATA], r2
  add64 r3, 10247                         # room to grow (10240), then up to a multiple of 8
  and64 r3, -8
  add64 r2, r3
  ldxdw r3, [r2+0]
  stxdw [r7+RENT_EPOCH], r3
  mov64 r6, r2
  add64 r6, 8
  add64 r7, INFO_SIZE
  sub64 r8, 1
  jne r8, 0, next_account

  # r6: instruction data (length, bytes, program id); r9: the account infos
  ldxdw r2, [r6+0]
  jne r2, SWAP_DATA_SIZE, not_a_swap
  ldxb r2, [r6+8]
  jne r2, 0, not_a_swap
  ldxdw r8, [r6+9]
  stxdw [r10+AMOUNT_IN], r8
  jeq r8, 0, nothing_to_trade

  # the state is ours
  ldxdw r2, [r9+DATA_LEN]
  jne r2, STATE_SIZE, wrong_accounts
  ldxdw r1, [r9+OWNER]
  mov64 r2, r6
  add64 r2, 25
  call same_key
  jne r0, 1, wrong_accounts

  # the token program is SPL Token
  ldxdw r1, [r9+336]                      # info 6, key
  lddw r2, token_program
  call same_key
  jne r0, 1, wrong_accounts

  # the vaults are the pool's: A in and B out, or the other way round
  stdw [r10+DIRECTION], 0
  ldxdw r7, [r9+DATA]
  ldxdw r1, [r9+224]                      # info 4, key
  mov64 r2, r7
  call same_key
  jeq r0, 1, paid_from_b
  stdw [r10+DIRECTION], 1
  ldxdw r1, [r9+224]
  mov64 r2, r7
  add64 r2, 32
  call same_key
  jne r0, 1, wrong_accounts
  ldxdw r1, [r9+280]                      # info 5, key
  mov64 r2, r7
  call same_key
  jne r0, 1, wrong_accounts
  ja price
paid_from_b:
  ldxdw r1, [r9+280]
  mov64 r2, r7
  add64 r2, 32
  call same_key
  jne r0, 1, wrong_accounts

price:
  mov64 r1, r8
  mov64 r2, 10000 - FEE_BPS
  mov64 r3, 10000
  call mul_div
  jeq r0, 0, nothing_to_trade
  mov64 r2, r0
  ldxdw r3, [r9+248]                      # info 4, data
  ldxdw r3, [r3+TOKEN_AMOUNT]
  ldxdw r1, [r9+304]                      # info 5, data
  ldxdw r1, [r1+TOKEN_AMOUNT]
  add64 r3, r2
  jlt r3, r2, too_large                   # wrapped around
  jslt r3, 0, too_large                   # mul_div divides by less than 2^63
  call mul_div
  stxdw [r10+AMOUNT_OUT], r0
  jeq r0, 0, nothing_to_trade
  ldxdw r2, [r6+17]
  jlt r0, r2, slippage

  lddw r1, swap_text
  mov64 r2, 17
  call sol_log_

  # the user pays
  mov64 r1, r9
  mov64 r2, r9
  add64 r2, 112                           # info 2
  mov64 r3, r9
  add64 r3, 224                           # info 4
  mov64 r4, r9
  add64 r4, 56                            # info 1
  mov64 r5, r8
  call transfer
  jne r0, 0, done

  # the pool pays
  mov64 r1, r9
  mov64 r2, r9
  add64 r2, 280                           # info 5
  mov64 r3, r9
  add64 r3, 168                           # info 3
  mov64 r4, r9                            # info 0
  ldxdw r5, [r10+AMOUNT_OUT]
  call transfer
  jne r0, 0, done

  ldxdw r2, [r7+64]
  add64 r2, 1
  stxdw [r7+64], r2

  lddw r2, 0x70617773_6c6f6f70            # "poolswap"
  stxdw [r10+EVENT], r2
  ldxdw r2, [r10+DIRECTION]
  stxdw [r10-456], r2
  stxdw [r10-448], r8
  ldxdw r2, [r10+AMOUNT_OUT]
  stxdw [r10-440], r2
  stxdw [r10+RETURN], r2
  ldxdw r2, [r9+248]
  ldxdw r2, [r2+TOKEN_AMOUNT]
  stxdw [r10-432], r2
  ldxdw r2, [r9+304]
  ldxdw r2, [r2+TOKEN_AMOUNT]
  stxdw [r10-424], r2
  mov64 r2, r10
  add64 r2, EVENT
  stxdw [r10+SLICE], r2
  stdw [r10-472], 48
  mov64 r1, r10
  add64 r1, SLICE
  mov64 r2, 1
  call sol_log_data

  mov64 r1, r10
  add64 r1, RETURN
  mov64 r2, 8
  call sol_set_return_data
  mov64 r0, 0
done:
  exit

wrong_accounts:
  mov64 r0, 6000
  exit
slippage:
  lddw r1, slippage_text
  mov64 r2, 36
  call sol_log_
  mov64 r0, 6001
  exit
nothing_to_trade:
  mov64 r0, 6002
  exit
not_a_swap:
  mov64 r0, 6003
  exit
too_large:
  mov64 r0, 6004
  exit

# r0 = 1 where the 32 bytes at r1 and r2 are the same, else 0
same_key:
  mov64 r0, 0
  ldxdw r3, [r1+0]
  ldxdw r4, [r2+0]
  jne r3, r4, keys_differ
  ldxdw r3, [r1+8]
  ldxdw r4, [r2+8]
  jne r3, r4, keys_differ
  ldxdw r3, [r1+16]
  ldxdw r4, [r2+16]
  jne r3, r4, keys_differ
  ldxdw r3, [r1+24]
  ldxdw r4, [r2+24]
  jne r3, r4, keys_differ
  mov64 r0, 1
keys_differ:
  exit

# r0 = r1 * r2 / r3, rounded down, by way of 128 bits; the quotient must fit in 64, r3 in 63
mul_div:
  mov64 r4, r1
  lsh64 r4, 32
  rsh64 r4, 32                            # a low
  rsh64 r1, 32                            # a high
  mov64 r5, r2
  lsh64 r5, 32
  rsh64 r5, 32                            # b low
  rsh64 r2, 32                            # b high
  mov64 r6, r4
  mul64 r6, r5                            # low * low
  mul64 r4, r2                            # a low * b high
  mul64 r5, r1                            # b low * a high
  mul64 r1, r2                            # high * high
  mov64 r7, r6
  rsh64 r7, 32
  mov64 r8, r4
  lsh64 r8, 32
  rsh64 r8, 32
  add64 r7, r8
  mov64 r8, r5
  lsh64 r8, 32
  rsh64 r8, 32
  add64 r7, r8                            # the middle, with what it carries
  rsh64 r4, 32
  rsh64 r5, 32
  add64 r1, r4
  add64 r1, r5
  mov64 r8, r7
  rsh64 r8, 32
  add64 r1, r8                            # r1: upper 64 bits of the product
  lsh64 r7, 32
  lsh64 r6, 32
  rsh64 r6, 32
  or64 r6, r7                             # r6: lower 64 bits
  mov64 r2, 64
divide_bit:
  lsh64 r1, 1
  mov64 r4, r6
  rsh64 r4, 63
  or64 r1, r4
  lsh64 r6, 1
  jlt r1, r3, next_bit
  sub64 r1, r3
  or64 r6, 1
next_bit:
  sub64 r2, 1
  jne r2, 0, divide_bit
  mov64 r0, r6
  exit

# SPL Token Transfer by CPI: r1 all infos, r2 source, r3 destination, r4 authority (infos), r5 amount.
# Signed for the pool state too, which counts only where the pool is the authority.
transfer:
  stxdw [r10-8], r5                       # instruction data: tag 3, amount
  stb [r10-9], 3
  ldxdw r0, [r2+KEY]                      # account metas at -64: key, writable, signer
  stxdw [r10-64], r0
  stdw [r10-56], 1
  ldxdw r0, [r3+KEY]
  stxdw [r10-48], r0
  stdw [r10-40], 1
  ldxdw r0, [r4+KEY]
  stxdw [r10-32], r0
  stdw [r10-24], 256                      # signer, read only
  ldxdw r0, [r1+336]                      # instruction at -104: program, metas, data
  stxdw [r10-104], r0
  mov64 r0, r10
  add64 r0, -64
  stxdw [r10-96], r0
  stdw [r10-88], 3
  mov64 r0, r10
  add64 r0, -9
  stxdw [r10-80], r0
  stdw [r10-72], 9
  lddw r0, seed                           # seeds at -136: "pool", bump
  stxdw [r10-136], r0
  stdw [r10-128], 4
  ldxdw r0, [r1+DATA]
  add64 r0, 72
  stxdw [r10-120], r0
  stdw [r10-112], 1
  mov64 r0, r10
  add64 r0, -136
  stxdw [r10-152], r0
  stdw [r10-144], 2
  mov64 r2, r1
  mov64 r1, r10
  add64 r1, -104
  mov64 r3, ACCOUNTS
  mov64 r4, r10
  add64 r4, -152
  mov64 r5, 1
  call sol_invoke_signed_c
  exit

.rodata
  token_program: .byte 6, 221, 246, 225, 215, 101, 161, 147, 217, 203, 225, 70, 206, 235, 121, 172, 28, 180, 133, 237, 95, 91, 55, 145, 58, 140, 245, 133, 126, 255, 0, 169
  seed: .ascii "pool"
  swap_text: .ascii "Instruction: Swap"
  slippage_text: .ascii "Error: less out than the least asked"

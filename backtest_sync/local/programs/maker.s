# A maker that publishes a price in an account of its own.
# Assembled by:  sbpf build --arch v0 --input maker.s --deploy-dir .        (sbpf 0.3.3)
#
# Publish: instruction data is price (u64) and confidence (u64), little endian.
#   accounts  0 price account (writable, owned by this program)   1 authority (signer)
# Price account (72 bytes):
#   0 authority (32)   32 price (u64)   40 confidence (u64)   48 slot (u64)   56 unix time (i64)
#   64 updates so far (u64)
#
# Logs "Instruction: Publish", then as data: "newprice", price, confidence.
# Errors: 6100 wrong accounts, 6101 not the authority, 6102 not a publish instruction.

.equ PRICE_SIZE, 72

.globl entrypoint
entrypoint:
  ldxdw r2, [r1+0]
  jne r2, 2, wrong_accounts
  mov64 r6, r1
  add64 r6, 8
  ldxdw r2, [r6+80]
  jne r2, PRICE_SIZE, wrong_accounts
  mov64 r7, r6
  add64 r7, 88                            # r7: the price account's data
  mov64 r8, r7
  add64 r8, 10320                         # behind data, room to grow (10240) and rent epoch
  ldxb r2, [r8+0]
  jne r2, 0xff, wrong_accounts
  ldxdw r2, [r8+80]
  jne r2, 0, wrong_accounts               # an authority holds no data
  mov64 r9, r8
  add64 r9, 10336                         # r9: instruction data (length, bytes, program id)
  ldxdw r2, [r9+0]
  jne r2, 16, not_a_publish
  mov64 r1, r6
  add64 r1, 40                            # the price account's owner
  mov64 r2, r9
  add64 r2, 24
  call same_key
  jne r0, 1, wrong_accounts
  ldxb r2, [r8+1]
  jne r2, 1, not_the_authority
  mov64 r1, r8
  add64 r1, 8
  mov64 r2, r7
  call same_key
  jne r0, 1, not_the_authority

  lddw r1, publish_text
  mov64 r2, 20
  call sol_log_

  mov64 r1, r10
  add64 r1, -40
  call sol_get_clock_sysvar
  ldxdw r2, [r9+8]
  stxdw [r7+32], r2
  stxdw [r10-56], r2
  ldxdw r2, [r9+16]
  stxdw [r7+40], r2
  stxdw [r10-48], r2
  ldxdw r2, [r10-40]
  stxdw [r7+48], r2
  ldxdw r2, [r10-8]
  stxdw [r7+56], r2
  ldxdw r2, [r7+64]
  add64 r2, 1
  stxdw [r7+64], r2

  lddw r2, 0x65636972_7077656e            # "newprice"
  stxdw [r10-64], r2
  mov64 r2, r10
  add64 r2, -64
  stxdw [r10-80], r2
  stdw [r10-72], 24
  mov64 r1, r10
  add64 r1, -80
  mov64 r2, 1
  call sol_log_data
  mov64 r0, 0
  exit

wrong_accounts:
  mov64 r0, 6100
  exit
not_the_authority:
  mov64 r0, 6101
  exit
not_a_publish:
  mov64 r0, 6102
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

.rodata
  publish_text: .ascii "Instruction: Publish"

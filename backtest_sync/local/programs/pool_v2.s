# The demo's pool program with a fee of 0.05 %: see pool.inc.s.
# Assembled by:  sbpf build --arch v0 --input pool_v2.s --deploy-dir .      (sbpf 0.3.3)
.equ FEE_BPS, 5
.include "pool.inc.s"

# The demo's pool program with a fee of 0.30 %: see pool.inc.s.
# Assembled by:  sbpf build --arch v0 --input pool_v1.s --deploy-dir .      (sbpf 0.3.3)
.equ FEE_BPS, 30
.include "pool.inc.s"

"""The demo's programs: sBPF assembly beside the ELF that it gives.

``pool_v1`` and ``pool_v2`` (a constant-product pool, fees of 0.30 % and 0.05 %) and ``maker`` (publishes a
price) are described at the head of their sources. To assemble one after a change, in this folder,
with sbpf 0.3.3 (``cargo install sbpf --version 0.3.3``)::

    sbpf build --arch v0 --input pool_v1.s --deploy-dir .
"""

from __future__ import annotations

from importlib.resources import files

NAMES = ("pool_v1", "pool_v2", "maker")


def elf(name: str) -> bytes:
    """The ELF of one of `NAMES`."""
    if name not in NAMES:
        raise ValueError(f"no program {name!r}; there are {', '.join(NAMES)}")
    return files(__name__).joinpath(f"{name}.so").read_bytes()

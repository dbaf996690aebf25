"""The mints that prices are worked out from (protocol/reroute.md §6)."""

from __future__ import annotations

import attrs

from backtest_sync.protocol.fields import to_text


@attrs.frozen
class Major:
    """A mint that others are priced against. A stable one is a dollar at its decimals."""

    symbol: str
    decimals: int
    is_stable: bool


_STABLE = True

#: By address, in the order in which the reference lists them.
MAJORS: dict[str, Major] = {
    "So11111111111111111111111111111111111111112": Major("SOL", 9, not _STABLE),
    "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v": Major("USDC", 6, _STABLE),
    "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB": Major("USDT", 6, _STABLE),
    "2b1kV6DkPAnxd5ixfnxCpjxmKwqjjaYmCZfHsFu24GXo": Major("PYUSD", 6, _STABLE),
    "USDSwr9ApdHk5bvJKMjzff41FfuX8bSxdKcR81vTwcA": Major("USDS", 6, _STABLE),
    "9zNQRsGLjNKwCUU5Gq5LR8beUCPzQMVMqKAi3SSZh54u": Major("FDUSD", 6, _STABLE),
    "A1KLoBrKBde8Ty9qtNQUtq3C2ortoC3u7twggz7sEto6": Major("USDY", 6, _STABLE),
    "USD1ttGY1N17NEEHLmELoaybftRBUSErhqYiQzvEmuB": Major("USD1", 6, _STABLE),
    "DEkqHyPN7GMRJ5cArtQFAWefqbZb33Hyf6s5iCwjEonT": Major("USDe", 9, _STABLE),
    "HzwqbKZw8HxMN6bF2yFZNrht3c2iXXzpKcFu7uBEDKtr": Major("EURC", 6, not _STABLE),
    "cbbtcf3aa214zXHbiAZQwf4122FBYbraNdFqgw4iMij": Major("cbBTC", 8, not _STABLE),
    "3NZ9JMVBmGAqocybic2c7LQCJScmgsAZ6vQqTDzcqmJh": Major("WBTC", 8, not _STABLE),
    "7vfCXTUXx5WJV5JADk17DUJ4ksgau7utNKj4b963voxs": Major("WETH", 8, not _STABLE),
    "J1toso1uCk3RLmjorhTtrVwY9HJ7X8V9yYac6Y7kGCPn": Major("jitoSOL", 9, not _STABLE),
    "mSoLzYCxHdYgdzU16g5QSh3i5K3z3KZK7ytfqcJm7So": Major("mSOL", 9, not _STABLE),
    "bSo13r4TkiE4KumL71LsHTPpL2euBYLFx6h9HP3piy1": Major("bSOL", 9, not _STABLE),
    "jupSoLaHXQiZZTSfEWMTRRgpnyFm8f6sZdosWBjx93v": Major("jupSOL", 9, not _STABLE),
    "5oVNBeEEQvYi1cX3ir8Dx5n1P7pdxydbGF2X4TxVusJm": Major("INF", 9, not _STABLE),
    "BNso1VUJnh4zcfpZa6986Ea66P6TCp59hvtNJ8b1X85": Major("bnSOL", 9, not _STABLE),
}

_SHORT = 12


def short_mint(mint: str) -> str:
    """The symbol of a major, else the text itself, with its middle cut where it is long."""
    major = MAJORS.get(to_text(mint, "mint"))
    if major is not None:
        return major.symbol
    return mint if len(mint) <= _SHORT else f"{mint[:6]}..{mint[-4:]}"

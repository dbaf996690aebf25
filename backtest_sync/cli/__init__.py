"""The command line: ``backtest-sync``, or ``python -m backtest_sync``.

One module a command: the first line of its docstring says what it is for, ``configure`` declares its
arguments, ``run`` does the work and gives the exit code. A failure is one line on stderr and exit
code 1; wrong arguments are 2 (protocol/cli.md §1).
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from backtest_sync.cli import demo, record, serve
from backtest_sync.errors import BacktestClientError
from backtest_sync.version import __version__

COMMANDS = {"demo": demo, "serve": serve, "record": record}
#: The shell's exit code for a program that SIGINT ended.
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    _print_what_the_terminal_can()
    args = _parser().parse_args(argv)
    try:
        code: int = COMMANDS[args.command].run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        return _nobody_reads()
    except (BacktestClientError, OSError) as error:
        print(f"✖ {describe(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def describe(error: BaseException) -> str:
    """The error and its causes in one line, each said once."""
    parts: list[str] = []
    link: BaseException | None = error
    while link is not None:
        said = link.strerror if isinstance(link, OSError) and link.strerror else str(link)
        text = " ".join(said.split()) or type(link).__name__
        if not any(text in part for part in parts):
            parts.append(text)
        link = link.__cause__
    return ": ".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="backtest-sync",
        description="Backtests on the Solana simulator, and on a local one.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        purpose = (module.__doc__ or "").partition("\n")[0]
        module.configure(commands.add_parser(name, help=purpose, description=purpose))
    return parser


def _print_what_the_terminal_can() -> None:
    """A terminal without UTF-8 gets a replacement character, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _nobody_reads() -> int:
    """Output went to a pipe that closed (``| head``): end quietly, at the exit too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1

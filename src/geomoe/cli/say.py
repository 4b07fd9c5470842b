"""What commands say: by this way alone, so that no scene, card or name can speak to the terminal."""

from __future__ import annotations

import os
import sys
from io import StringIO
from typing import TYPE_CHECKING

import click

from geomoe.errors import GeomoeError
from geomoe.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["mute", "say", "say_table", "with_streams"]


def say(*lines: str, err: bool = False) -> None:
    """Write lines; what a line holds begins no other one.

    Args:
        lines: each on its own.
        err: on standard error, of which nobody can be told that it takes nothing.

    Raises:
        GeomoeError: if standard output takes no more, as that of a full disk.
    """
    try:
        click.echo("\n".join(map(printable, lines)), err=err)
    except BrokenPipeError:
        raise
    except OSError as error:
        if err:
            mute(2)
            return
        mute(1)
        raise GeomoeError(
            f"standard output takes no more: {error.strerror}; make room, or send it elsewhere"
        ) from error


def say_table(table: Table) -> None:
    """Write a table as `say` does, 110 characters wide."""
    from rich.console import Console

    drawn = StringIO()
    Console(file=drawn, width=110).print(table)
    say(*drawn.getvalue().rstrip("\n").split("\n"))


def mute(stream: int) -> None:
    """Have standard output (1) or error (2) go nowhere, what is still to be written of it included."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream)
    os.close(null)


def with_streams() -> None:
    """Open what is closed of standard input, output and error, to go nowhere.

    The first file to be opened would take the number of one, and be written to by whoever speaks there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the smallest number that is free
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115

"""The entry point of the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jupyter_inplace.cli.arguments import BadInputError, parse

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name.

    :param words: the arguments, without the name of the program; None for those of this process.
    :return: the exit status: 2 if an argument, or a file that it names, is wrong, else that of the command.
    """
    words = sys.argv[1:] if words is None else list(words)
    options = parse(words)
    try:
        return options.command(options)
    except BadInputError as error:
        print(f"jupyter-inplace: {error}", file=sys.stderr)
        return 2

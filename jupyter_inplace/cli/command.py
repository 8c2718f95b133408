"""Where the command line begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jupyter_inplace.cli.arguments import BadInputError, parse

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words say.

    :param words: the command line without the program's name; None: this process's own.
    :return: the exit status: 0, 2 where the words or a file they name are no good, else what the command says.
    """
    words = sys.argv[1:] if words is None else list(words)
    options = parse(words)
    try:
        return options.command(options)
    except BadInputError as error:
        print(f"jupyter-inplace: {error}", file=sys.stderr)
        return 2

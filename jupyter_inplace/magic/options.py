"""The options on the line of the magic."""

from __future__ import annotations

import argparse
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from IPython.core.error import UsageError

#: One word, or several words in quotes.
_WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")
#: The words that ``%autograd_watch`` (one per cent sign) accepts.
SWITCHES = ("on", "off", "status")


@dataclass(frozen=True)
class Options:
    """What the person asked for on the line of the magic."""

    tasks: tuple[str, ...] = ()
    result: str | None = None
    quiet: bool = False
    fingerprint: str = "exported"
    gradients: bool | None = None
    verify: bool | None = None
    verify_seconds: float | None = None
    save: Path | None = None
    run_eagerly: bool = False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (%%autograd_watch --help lists what there is)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="%%autograd_watch",
        description="Watch this cell for in-place writes that break gradients, and show what they hit.",
        epilog="%autograd_watch on|off|status (one per cent sign) watches all following cells.",
        add_help=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("tasks", nargs="*", metavar="TASK", help="variables that hold the losses; by default they are found")
    add("-r", "--result", metavar="NAME", help="bind the report to this variable, even if the cell raises")
    add("-q", "--quiet", action="store_true", help="show nothing")
    add(
        "--fingerprint",
        choices=("exported", "all", "off"),
        default="exported",
        help="which saved tensors to compare by value, to find writes that torch does not see (numpy, DLPack): "
        "those whose memory was exported (exported, the default), all, or none (off)",
    )
    gradients = parser.add_mutually_exclusive_group()
    gradients.add_argument(
        "--gradients", action="store_true", default=None, help="compute reference gradients for a clean cell too"
    )
    gradients.add_argument(
        "--no-gradients", action="store_false", dest="gradients", default=None, help="compute no reference gradients"
    )
    verify = parser.add_mutually_exclusive_group()
    verify.add_argument(
        "--verify", action="store_true", default=None, help="prove rewrites however large the state of the cell is"
    )
    verify.add_argument(
        "--no-verify", action="store_false", dest="verify", default=None, help="offer rewrites without trying them"
    )
    add("--verify-seconds", type=_seconds, metavar="S", help="seconds that all proofs of the cell share (default: 30)")
    add(
        "--run-eagerly",
        action="store_true",
        help="TensorFlow: run the body of each tf.function as Python, so that all of its assigns are seen (slower)",
    )
    add("--save", type=_writable, metavar="FILE", help="save the report as JSON in this file")
    add("-h", "--help", action="store_true", help="show this text; the cell does not run")
    return parser


def _seconds(word: str) -> float:
    seconds = float(word)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of seconds above 0")
    return seconds


def _writable(word: str) -> Path:
    path = Path(word).expanduser()
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{word!r} is a folder")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path.absolute()  # the cell may change the working directory


def help_text() -> str:
    """The text that ``--help`` prints and ``%%autograd_watch?`` shows."""
    return _parser().format_help()


def words_of(line: str) -> list[str]:
    """The words of the line. A task may be ``losses["seg"]``: quotes inside of a word are part of it.

    :raises UsageError: a quote is not closed.
    """
    found = _WORD.findall(line)
    if _WORD.sub("", line).strip():
        raise UsageError(f"a quote is not closed in `{line.strip()}`")
    return [w[1:-1] if len(w) > 1 and w[0] == w[-1] and w[0] in "\"'" else w for w in found]


def asks_for_help(line: str) -> bool:
    """Whether the line contains ``--help``."""
    try:
        return not {"-h", "--help"}.isdisjoint(words_of(line))
    except UsageError:
        return False


def parse(line: str) -> Options:
    """Read the line of the magic.

    :raises UsageError: an unknown option or a wrong value; the message contains it.
    """
    found = vars(_parser().parse_args(words_of(line)))
    del found["help"]
    options = Options(**{**found, "tasks": tuple(found["tasks"])})
    name = options.result
    if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
        raise UsageError(f"--result {name}: not the name of a variable")
    if len(options.tasks) == 1 and options.tasks[0] in SWITCHES:
        word = options.tasks[0]
        raise UsageError(f"%%autograd_watch {word}: write %autograd_watch {word} (one %) in a cell of its own")
    return options

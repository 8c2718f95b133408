"""The arguments of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyter_inplace.report.data import VERDICTS, Verdict

#: The verdicts that `--fail-on` accepts; ``harmless`` would fail everything.
LEVELS: tuple[Verdict, ...] = VERDICTS[:-1]


class BadInputError(Exception):
    """Something that a person named does not exist or cannot be used; the text is one sentence for them."""


@dataclass(frozen=True)
class Options:
    """The options of all commands; each command reads its own."""

    command: Callable[[Options], int]
    # run
    script: str | None = None
    module: str | None = None
    arguments: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    fingerprint: str = "exported"
    gradients: bool | None = None
    save: Path | None = None
    fail_on: Verdict | None = None
    quiet: bool = False
    # show
    reports: tuple[str, ...] = ()
    html: Path | None = None
    # fix
    apply: bool = False
    reading: str | None = None
    seconds: float = 60.0


def parse(words: Sequence[str]) -> Options:
    """Read the command line. If the first word is not the name of a command, a program is run.

    :raises SystemExit: an argument is wrong (status 2), or help was asked for (status 0).
    """
    command, rest = (words[0], words[1:]) if words and words[0] in ("show", "fix") else ("run", words)
    parser = {"run": _run_parser, "show": _show_parser, "fix": _fix_parser}[command]()
    found = vars(parser.parse_args(rest))
    if command == "run":
        program = found.pop("program")
        if found["module"] is not None:
            found["module"], found["arguments"] = _first(parser, found["module"], "-m: which module?")
        else:
            found["script"], found["arguments"] = _first(parser, program, "which script?")
    elif command == "fix":
        found["script"], found["arguments"] = _first(parser, found.pop("program"), "which script?")
    else:
        found["reports"] = tuple(found["reports"])
    if "tasks" in found:
        found["tasks"] = tuple(found["tasks"])
    return Options(command=_command(command), **found)


def _first(parser: argparse.ArgumentParser, words: list[str], question: str) -> tuple[str, tuple[str, ...]]:
    if words and words[0] == "--":
        words = words[1:]
    if not words:
        parser.error(question)
    return words[0], tuple(words[1:])


def _command(name: str) -> Callable[[Options], int]:
    """A command by its name. Its module is imported only when it runs."""

    def run(options: Options) -> int:
        from importlib import import_module

        status: int = import_module(f"jupyter_inplace.cli.{name}").main(options)
        return status

    return run


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jupyter_inplace",
        usage="python -m jupyter_inplace [options] (script.py | -m module) [arguments of the program ...]\n"
        "       jupyter-inplace show REPORT.json ... [--html PAGE]\n"
        "       jupyter-inplace fix [--apply] script.py [arguments of the script ...]",
        description="Run a program under the watch: which of its in-place writes break gradients, and what they hit.",
        epilog="The report goes to the error stream, so that the program's own output stays what it is. Exit status: "
        "the program's own; 3 where --fail-on is met, unless the program asked for another one by sys.exit(); "
        "4 where it is not met, but the report is unknown and the program's own status is 0; "
        "2 for a wrong word here.",
        allow_abbrev=False,
    )
    _watch_words(parser)
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the report as JSON, one file a rank")
    parser.add_argument(
        "--fail-on", choices=LEVELS, metavar="VERDICT",
        help=f"exit with status 3 if the verdict is this or worse: {', '.join(LEVELS)}",
    )  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="print no report")
    parser.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE", help="run a module, as python -m does"
    )
    parser.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _watch_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task", dest="tasks", action="append", default=[], metavar="NAME",
        help="the name of a loss; may be given several times. By default the losses are found",
    )  # fmt: skip
    parser.add_argument(
        "--fingerprint", choices=("exported", "all", "off"), default="exported",
        help="which saved tensors are compared by value, to find writes that torch does not see (default: exported)",
    )  # fmt: skip
    parser.add_argument(
        "--gradients", action=argparse.BooleanOptionalAction, default=None,
        help="compute reference gradients always, or never; by default only where a write did harm",
    )  # fmt: skip


def _show_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jupyter-inplace show",
        description="Show a saved report. Several, a folder or a pattern: the merged one (ranks, runs, watched steps).",
        allow_abbrev=False,
    )
    parser.add_argument("reports", nargs="+", metavar="REPORT.json", help="a file, a folder or a pattern")
    parser.add_argument("--html", type=Path, metavar="PAGE", help="write an HTML page instead of printing text")
    return parser


def _fix_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jupyter-inplace fix",
        description="Run a script, rewrite what breaks its gradients, and prove each rewrite by running it on a copy.",
        epilog="Nothing is written without --apply. Exit status: 0 if nothing is to be done or the best proved rewrite "
        "was applied, 1 if there is something to do, 2 for a wrong argument.",
        allow_abbrev=False,
    )
    _watch_words(parser)
    parser.add_argument("--apply", action="store_true", help="write the best proved rewrite into the script")
    parser.add_argument(
        "--reading", choices=("update", "copy"),
        help="for a write that torch refuses: change the leaf itself (update), or continue with a new tensor (copy)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=_seconds, default=60.0, metavar="N", help="for all proofs together (default: 60)"
    )
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="script.py", help="the script and its arguments")
    return parser


def _seconds(word: str) -> float:
    value = float(word)
    if not value > 0:
        raise ValueError(word)
    return value

#!/usr/bin/env python3
"""Compare the reports that two checkouts of this project make of the same cells.

    python tools/compare_reports.py OLD NEW FOLDER [FOLDER ...] [--words]

A cell is a `.py` file of a folder; where it has the lines `# --- cell ---` and `# --- fixed ---`, only what stands between
them. Each checkout runs it under `%%autograd_watch` in a process of its own, with one thread and fixed seeds, until its
rewrites are proved. Then the two `report.to_dict()` are compared, path by path. These do not count: `time`, seconds and
addresses inside of sentences, the paths of the checkouts, and numbers that only identify: `storage`, `seq`, and names such
as `t3` of tensors without one are compared by their order.

A cell that differs is run once more by both checkouts. It is *unstable*, which does not count, if at each place some run of
NEW agrees with some run of OLD, or if the two runs of OLD do not agree; rewrites, where the clock decides, are judged apart
from the rest, and a NEW that never makes a report differs. A cell of which neither makes a report is *not compared*, which
does count.

The exit status is 0 if every cell was compared and none differs, else 1.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from report_differences import Difference, Failure, Outcome, both_failed, changed_sentences, compare, normalise

#: Seconds that one run of a cell may take.
TIME_LIMIT = 300.0
_FEW = 8  # differences that are printed of an unstable cell


def cell_of(path: Path) -> str:
    """The source of the cell in a file."""
    text = path.read_text(encoding="utf-8")
    _, found, below = text.partition("# --- cell ---\n")
    return below.partition("# --- fixed ---\n")[0] if found else text


def run_cell(checkout: Path, path: Path) -> Outcome:
    """The normalised report that a checkout makes of a cell, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="compare_reports-") as folder:
        answer, printed, private = Path(folder, "report.json"), Path(folder, "printed"), Path(folder, "cell")
        private.mkdir()
        environment = {
            **os.environ,
            "PYTHONPATH": str(checkout),
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            # Some rewrites that fail read memory that nothing wrote to (`torch.empty`): have glibc fill it, with floats of 0.75.
            "GLIBC_TUNABLES": "glibc.malloc.perturb=192:glibc.malloc.tcache_count=0",
            "IPYTHONDIR": str(Path(folder, "ipython")),
            "JUPYTER_PLATFORM_DIRS": "1",
        }
        command = [sys.executable, __file__, "--one-cell", str(checkout), str(path), str(answer)]
        with printed.open("wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=private,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(TIME_LIMIT)
            except subprocess.TimeoutExpired:
                return Failure(f"no end within {TIME_LIMIT:g} s")
            finally:  # what the cell or its proofs started goes with it
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if status != 0 or not answer.exists():
            lines = printed.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return Failure(f"exit status {status}: {lines[-1][-200:] if lines else 'nothing was printed'}")
        return normalise(json.loads(answer.read_text(encoding="utf-8")), str(checkout))


def run_here(checkout: str, path: str, answer: str) -> None:
    """Run a cell in this process, and write its report to the file `answer`."""
    import random
    import warnings

    import numpy as np
    import torch
    from IPython.core.interactiveshell import InteractiveShell

    warnings.simplefilter("ignore")
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "jupyter_inplace")
    package = sys.modules["jupyter_inplace"].__file__ or ""
    if not Path(package).is_relative_to(checkout):  # else an installed package would be compared with itself
        raise SystemExit(f"jupyter_inplace was imported from {package}, not from {checkout}")
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the generator that cells use)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        shell.run_cell("%%autograd_watch --result watch_report\n" + cell_of(Path(path)), store_history=False)
    report = shell.user_ns.get("watch_report")
    if report is None:
        raise SystemExit(f"no report: {printed.getvalue().strip()[-200:]}")
    Path(answer).write_text(json.dumps(report.to_dict()), encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of the comparison of one cell.

    :param state: `equal`, `differs`, `unstable` or `not compared`.
    :param found: all differences, those that do not count too.
    :param wavering: paths at which two runs of the same checkout differ.
    :param why: why there is no report.
    """

    state: str
    found: Sequence[Difference] = ()
    wavering: frozenset[str] = frozenset()
    why: str = ""


def compare_cell(both: Callable[[], tuple[Outcome, Outcome]], counts: Callable[[Difference], bool]) -> Result:
    """Compare what two checkouts make of one cell.

    :param both: runs the cell in both checkouts.
    :param counts: whether a difference is one.
    """
    old, new = both()
    if isinstance(old, Failure) and isinstance(new, Failure):
        return Result("not compared", why=f"{old.reason} | {new.reason}")
    found = compare(old, new)
    if not any(map(counts, found)):
        return Result("equal", found)
    olds, news = zip((old, new), both(), strict=True)
    wavering = frozenset(d.path for pair in (olds, news) for d in compare(*pair))
    pairs = [pair for pair in itertools.product(olds, news) if not both_failed(*pair)]
    everywhere = set.intersection(*({d.path for d in compare(*pair) if counts(d)} for pair in pairs))
    shaky = {_is_of_rewrites(d.path) for d in compare(*olds) if counts(d)}
    differs = any(_is_of_rewrites(path) not in shaky for path in everywhere)
    fails = all(isinstance(new, Failure) for new in news)
    return Result("differs" if differs or fails else "unstable", found, wavering)


def _is_of_rewrites(path: str) -> bool:
    return path.startswith("fixes")


class Words:
    """The changed sentences of all cells, each once."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str], list[str]] = {}

    def add(self, cell: str, found: Iterable[Difference]) -> None:
        for difference in found:
            for pair in changed_sentences(difference):
                cells = self._cells.setdefault(pair, [])
                if cell not in cells:
                    cells.append(cell)

    def lines(self) -> Iterator[str]:
        for (old, new), cells in self._cells.items():
            more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
            yield f"  ({cells[0]}{more})\n    - {old or '(nothing)'}\n    + {new or '(nothing)'}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="the checkout to compare it with")
    parser.add_argument("folders", type=Path, nargs="+", metavar="folder", help="holds cells: its *.py files")
    parser.add_argument("--words", action="store_true", help="sentences do not count: each changed one is listed once")
    parser.add_argument(
        "--new-fields", action="store_true", help="fields that OLD lacks do not count: they are listed once"
    )
    parser.add_argument("--only", default="", metavar="PART", help="only cells that have this in their name")
    options = parser.parse_args(arguments)
    options.old, options.new = options.old.resolve(), options.new.resolve()
    for checkout in (options.old, options.new):
        if not (checkout / "jupyter_inplace" / "__init__.py").is_file():
            parser.error(f"{checkout} is no checkout of jupyter_inplace")
    options.cells = []
    for folder in options.folders:
        cells = [path.resolve() for path in sorted(folder.glob("*.py")) if options.only in path.stem]
        if not cells and not options.only:
            parser.error(f"there is no cell in {folder}")
        options.cells += cells
    if not options.cells:
        parser.error(f"no cell has {options.only!r} in its name")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print; returns the exit status."""
    options = parse(arguments)
    began = time.monotonic()
    words, fields = Words(), dict[str, None]()
    states: collections.Counter[str] = collections.Counter()

    def counts(difference: Difference) -> bool:
        return not (options.words and difference.is_words) and not (options.new_fields and difference.is_new_field)

    with ThreadPoolExecutor(2) as pool:
        for path in options.cells:
            name = f"{path.parent.name}/{path.stem}"

            def both(path: Path = path) -> tuple[Outcome, Outcome]:
                old, new = pool.map(run_cell, (options.old, options.new), (path, path))
                return old, new

            result = compare_cell(both, counts)
            states[result.state] += 1
            print(f"{result.state:12s} {name}{result.why and ': '}{result.why}", flush=True)
            found = list(filter(counts, result.found))
            shown = found if result.state == "differs" else found[:_FEW]
            for difference in shown:
                varies = " (varies from run to run)" if difference.path in result.wavering else ""
                print(f"    {difference}{varies}", flush=True)
            if len(shown) < len(found):
                print(f"    and {len(found) - len(shown)} more")
            if options.words:
                words.add(name, (d for d in result.found if d.is_words and d.path not in result.wavering))
            if options.new_fields:
                fields |= {re.sub(r"\[\d+\]", "[]", d.path): None for d in result.found if d.is_new_field}
    for title, lines in (("changed sentences", words.lines()), ("new fields", (f"  {field}" for field in fields))):
        for place, line in enumerate(lines):
            print(line if place else f"{title}:\n{line}")
    told = ", ".join(f"{states[state]} {state}" for state in ("equal", "differs", "unstable", "not compared"))
    print(f"{len(options.cells)} cells: {told}; {time.monotonic() - began:.0f} s")
    return int(states["differs"] + states["not compared"] > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one-cell"]:
        run_here(*sys.argv[2:])
    else:
        sys.exit(main())

#!/usr/bin/env python3
"""Compare the reports that two checkouts of this project make of the same cells.

    python tools/compare_reports.py OLD NEW FOLDER [FOLDER ...] [--words]

A cell is a `.py` file of a folder; where it has the lines `# --- cell ---` and `# --- fixed ---`, only what stands between
them. Each checkout runs it under `%%autograd_watch` in a process of its own, with one thread and fixed seeds, until its
rewrites are proved. Then the two `report.to_dict()` are compared, path by path. These do not count: `time`, seconds and
addresses inside of sentences, the paths of the checkouts, and numbers that only identify (`storage`, `seq`), which are
compared by their order.

A cell that differs is run once more by both checkouts. If at each place some run of the one agrees with some run of the
other, it is *unstable*, which does not count. A cell of which neither checkout makes a report is *not compared*, which does.

The exit status is 0 if every cell was compared and none differs, else 1.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import difflib
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
from typing import Any

#: Fields that hold sentences for people. `explanation` is what our tool adds to the message of an error, see `normalise`.
PROSE = frozenset({"summary", "note", "title", "reason", "blind_spots", "explanation"})
#: Seconds that one run of a cell may take.
TIME_LIMIT = 300.0

_SECONDS = re.compile(r"\b\d+(?:\.\d+)?(?:e[-+]?\d+)? ?(?:s|ms|seconds?|milliseconds?)\b")
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+|\n+")
_SHOWN = 160  # characters of a value that are printed


class _Nothing:
    """In place of a value that one of the two does not have."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why there is no report of a cell."""

    reason: str


Outcome = dict[str, Any] | Failure


@dataclasses.dataclass(frozen=True)
class Difference:
    """One place where two reports differ, such as `mutations[0].verdict`; a side that lacks it has `NOTHING`."""

    path: str
    old: Any
    new: Any

    @property
    def field(self) -> str:
        """The name of the innermost field, without positions in lists."""
        return re.sub(r"\[\d+\]", "", self.path).rpartition(".")[2]

    @property
    def is_words(self) -> bool:
        return self.field in PROSE

    @property
    def is_new_field(self) -> bool:
        return self.old is NOTHING and not self.path.endswith("]")

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.old, self.new)} -> {_shown(self.new, self.old)}"


def _shown(value: Any, other: Any) -> str:
    """A value as it is printed: a long text from shortly before the place where it parts from the `other` one."""
    if not isinstance(value, str):
        text = repr(value) if value is NOTHING or isinstance(value, Failure) else json.dumps(value, ensure_ascii=False)
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    begin = 0
    if isinstance(other, str) and len(value) > _SHOWN:
        common = sum(1 for _ in itertools.takewhile(bool, map(str.__eq__, value, other)))
        begin = max(0, common - 40)
    part = value[begin : begin + _SHOWN]
    return f"{'...' * (begin > 0)}{json.dumps(part, ensure_ascii=False)}{'...' * (begin + _SHOWN < len(value))}"


def normalise(report: dict[str, Any], checkout: str = "") -> dict[str, Any]:
    """A report without what differs from run to run although nothing else was found.

    The message of the cell's error is parted: `message` keeps torch's or the program's own words, `explanation` gets ours, which stand
    below the first empty line.
    """
    storages: dict[int, int] = {}
    order = {seq: place for place, seq in enumerate(sorted({event["seq"] for event in report.get("timeline", ())}))}

    def clean(value: Any, field: str) -> Any:
        if isinstance(value, dict):
            return {name: clean(item, name) for name, item in value.items() if name != "time"}
        if isinstance(value, list):
            return [clean(item, field) for item in value]
        if field == "storage" and value is not None:
            return storages.setdefault(value, len(storages))
        if field == "seq":
            return order[value]
        if isinstance(value, str):
            text = value.replace(checkout, "<checkout>") if checkout else value
            if field in PROSE or field == "message":
                text = _ADDRESS.sub("<address>", _SECONDS.sub("<seconds>", text))
            return text
        return value

    cleaned: dict[str, Any] = clean(report, "")
    error = cleaned.get("error")
    if error is not None:
        error["message"], _, error["explanation"] = error["message"].partition("\n\n")
    return cleaned


def differences(old: Any, new: Any, path: str = "") -> Iterator[Difference]:
    """Where two normalised reports, or parts of reports, differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in (*old, *(name for name in new if name not in old)):
            yield from differences(old.get(name, NOTHING), new.get(name, NOTHING), f"{path}.{name}".lstrip("."))
    elif isinstance(old, list) and isinstance(new, list) and _is_of_parts(old + new, path):
        for place, a, b in _aligned(old, new):
            yield from differences(a, b, f"{path}[{place}]")
    elif type(old) is not type(new) or old != new:  # True is 1 to Python, and is not to a reader of the report
        yield Difference(path, old, new)


def _is_of_parts(items: list[Any], path: str) -> bool:
    """Whether the elements of a list are compared one by one; a shape, or a list of names, is one value."""
    return path in PROSE or any(isinstance(item, dict) for item in items)


def _aligned(old: list[Any], new: list[Any]) -> Iterator[tuple[int, Any, Any]]:
    """Elements that belong together, each with its place in `old` (in `new` where `old` has none).

    Elements that are equal but for their sentences belong together first; what stands between them is paired in its order.
    """
    matcher = difflib.SequenceMatcher(None, [_facts(item) for item in old], [_facts(item) for item in new], False)
    for _, i1, i2, j1, j2 in matcher.get_opcodes():
        for i, j in itertools.zip_longest(range(i1, i2), range(j1, j2)):
            yield j if i is None else i, NOTHING if i is None else old[i], NOTHING if j is None else new[j]


def _facts(item: Any) -> str:
    """A part of a report without its sentences, as a text to compare."""

    def strip(value: Any) -> Any:
        return {k: strip(v) for k, v in value.items() if k not in PROSE} if isinstance(value, dict) else value

    return json.dumps(strip(item), sort_keys=True)


def compare(old: Outcome, new: Outcome) -> list[Difference]:
    """All differences between what two runs of a cell gave. Two failures do not differ."""
    if _both_failed(old, new):
        return []
    if isinstance(old, Failure) or isinstance(new, Failure):
        return [Difference("report", *(side if isinstance(side, Failure) else "a report" for side in (old, new)))]
    return list(differences(old, new))


def _both_failed(old: Outcome, new: Outcome) -> bool:
    return isinstance(old, Failure) and isinstance(new, Failure)


def changed_sentences(difference: Difference) -> Iterator[tuple[str, str]]:
    """The sentences that differ between the texts of a difference, old and new; a side without one has the empty text."""
    old, new = (_SENTENCE_END.split(side) if isinstance(side, str) else [] for side in (difference.old, difference.new))
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, False).get_opcodes():
        if tag == "equal":
            continue
        if i2 - i1 == j2 - j1:
            yield from zip(old[i1:i2], new[j1:j2], strict=True)
        else:
            yield " ".join(old[i1:i2]), " ".join(new[j1:j2])


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
        command = [sys.executable, "-P", __file__, "--one-cell", str(checkout), str(path), str(answer)]
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
    pairs = [pair for pair in itertools.product(olds, news) if not _both_failed(*pair)]
    everywhere = set.intersection(*({d.path for d in compare(*pair) if counts(d)} for pair in pairs))
    return Result("differs" if everywhere else "unstable", found, wavering)


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
            for difference in filter(counts, result.found):
                varies = " (varies from run to run)" if difference.path in result.wavering else ""
                print(f"    {difference}{varies}", flush=True)
            if options.words:
                words.add(name, (d for d in result.found if d.is_words))
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

"""What a proof costs besides the worker's run of the cell, on the watched cells of the multi-task example.

Each candidate is proved on the state from before the cell. Printed are the wall-clock milliseconds of the control run and of
the references, which are made once a cell, and of each proof: in all, in the worker's run of the cell, and the rest, which is
what the proof itself costs. The worst rest is held against its target.

    python -m benchmarks.proofs [--notebook FILE] [--repeat N]
"""

from __future__ import annotations

import argparse
import json
import linecache
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from jupyter_inplace.report import HARMFUL, Cell, Fix, Report
from jupyter_inplace.rewrite.before import Before
from jupyter_inplace.rewrite.candidates import candidates
from jupyter_inplace.rewrite.proof.events import Ending
from jupyter_inplace.rewrite.proof.prove import prove
from jupyter_inplace.rewrite.proof.runs import Sandbox
from jupyter_inplace.rewrite.sandbox.outcome import Limits, Outcome
from jupyter_inplace.watch import watch

TARGET = 0.100  # seconds a proof may take besides the worker's run of the cell
_MAGIC = "%%autograd_watch"
_NOTEBOOK = Path(__file__).parent.parent / "examples" / "03_multi_task_digits.ipynb"


class Timed:
    """A sandbox that notes how long the cell took in each run."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.runs: list[tuple[str, float]] = []  # manner, seconds of the cell in the worker

    def run(self, target: str, arguments: dict[str, Any] | None = None, limits: Limits | None = None) -> Outcome:
        outcome = self._sandbox.run(target, arguments, limits)
        ending = next((message for message in outcome.messages if isinstance(message, Ending)), None)
        manner = arguments["trial"].manner if arguments else ""
        self.runs.append((manner, 0.0 if ending is None else ending.seconds))
        return outcome

    def prepare(self, modules: Any) -> None:
        self._sandbox.prepare(modules)


def cells_of(notebook: Path) -> list[str]:
    """The code before the first watched cell, which makes what the watched ones need, and the watched ones."""
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]
    first = next(i for i, source in enumerate(sources) if source.startswith(_MAGIC))
    before = [source for source in sources[:first] if not source.startswith("%")]
    return before + [source for source in sources[first:] if source.startswith(_MAGIC)]


def watched(source: str, names: dict[str, Any], number: int) -> tuple[Report, Before, float]:
    """Run a cell under the watch; its report, the state from before it, and its seconds."""
    file = f"<cell {number}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    body = compile("\n" + source.partition("\n")[2], file, "exec")
    before = Before.keep(names, source)
    watching = watch(cell=Cell(source=source), cell_file=file, namespace=lambda: names)
    began = time.perf_counter()
    watching.start()
    raised: Exception | None = None
    try:
        exec(body, names)  # noqa: S102  the notebook's own cell
    except Exception as error:  # noqa: BLE001  what a broken cell raises
        raised = error
    report = watching.stop(raised)
    return report, before, time.perf_counter() - began


def prove_all(source: str, report: Report, sandbox: Sandbox, seconds: float) -> list[tuple[Fix, float, float]]:
    """Each fix with the seconds of its proof and of the worker's run in it; the first one's hold the references too."""
    timed = Timed(sandbox)
    rows: list[tuple[Fix, float, float]] = []
    mark = time.perf_counter()

    def took(fix: Fix) -> None:
        nonlocal mark
        now = time.perf_counter()
        rows.append((fix, now - mark, sum(run for _, run in timed.runs)))
        timed.runs.clear()
        mark = time.perf_counter()

    proposals = candidates(source, report)
    mark = time.perf_counter()
    # The first one brings the control run and the references with it: it is proved twice, and its second proof counts.
    prove(source, report, (proposals[0], *proposals), timed, cell_seconds=seconds, on_fix=took)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; 1 where the target is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proofs", description=__doc__)
    parser.add_argument("--notebook", type=Path, default=_NOTEBOOK)
    parser.add_argument("--repeat", type=int, default=3, help="proofs of each cell; the median counts")
    options = parser.parse_args(arguments)
    worst = 0.0
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(cells_of(options.notebook)):
        if not source.startswith(_MAGIC):
            exec(compile(source, f"<cell {number}>", "exec"), names)  # noqa: S102  the notebook's own cell
            continue
        report, before, seconds = watched(source, names, number)
        if report.verdict not in HARMFUL or before.sandbox is None:
            before.drop()
            continue
        tries = [prove_all(source, report, before.sandbox, seconds) for _ in range(options.repeat)]
        before.drop()
        print(
            f"\n{report.summary}\ncell {seconds * 1e3:.0f} ms; control and references {_first(tries) * 1e3:.0f} ms, once"
        )
        print(f"{'proof':<34}{'status':<12}{'all':>8}{'cell':>8}{'rest':>8}  ms")
        for i, (fix, _, _) in enumerate(tries[0][1:], start=1):
            whole = statistics.median(rows[i][1] for rows in tries)
            cell = statistics.median(rows[i][2] for rows in tries)
            worst = max(worst, whole - cell)
            status = fix.verification.status
            print(f"{fix.title[:33]:<34}{status:<12}{whole * 1e3:8.0f}{cell * 1e3:8.0f}{(whole - cell) * 1e3:8.0f}")
    met = worst <= TARGET
    print(f"\nworst rest {worst * 1e3:.0f} ms, target {TARGET * 1e3:.0f} ms: {'met' if met else 'not met'}")
    return 0 if met else 1


def _first(tries: list[list[tuple[Fix, float, float]]]) -> float:
    """The seconds of the control run and the references: what the first proof took beyond its second time."""
    return statistics.median(rows[0][1] - rows[1][1] for rows in tries)


if __name__ == "__main__":
    sys.exit(main())

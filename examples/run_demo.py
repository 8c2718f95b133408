"""What `make demo` runs: the multi-task example in a real kernel, its reports as text here and as HTML in a file."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nbclient.exceptions import CellExecutionError
from notebooks import FOLDER, bundles, code_cells, read, run, write_page

NOTEBOOK = FOLDER / "03_multi_task_digits.ipynb"


class Progress:
    """One line a cell: what runs, then how long it took."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._began = 0.0

    def start(self, cell: Any) -> None:
        """Say what runs now."""
        self._done += 1
        self._began = time.monotonic()
        lines = [line for line in cell.source.splitlines() if line.strip()]
        print(f"[{self._done}/{self._total}] {lines[0]:.60s} ...", end="", flush=True)

    def finish(self) -> None:
        """Say how long it took."""
        print(f" {time.monotonic() - self._began:.1f} s", flush=True)


def main() -> int:
    """Run, print, save; then open JupyterLab where somebody is there to see it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/demo"), help="folder for the HTML and the notebook")
    parser.add_argument("--lab", action="store_true", help="open JupyterLab on the notebook afterwards (on a terminal)")
    options = parser.parse_args()

    notebook = read(NOTEBOOK)
    progress = Progress(len(code_cells(notebook)))
    print(f"== running {NOTEBOOK.name} in a kernel")
    try:
        run(notebook, progress.start, progress.finish)
    except CellExecutionError as error:
        print(f"\nthe demo failed:\n{error}", file=sys.stderr)
        return 1
    for bundle in bundles(notebook):
        print(f"\n{'-' * 100}\n{bundle['text/plain']}")

    page = options.output / NOTEBOOK.with_suffix(".html").name
    write_page(notebook, page)
    # JupyterLab saves what it opens: it gets a copy, so that the example stays as it is.
    copy = options.output / NOTEBOOK.name
    shutil.copyfile(NOTEBOOK, copy)
    print(f"\n{'-' * 100}\nthe notebook with its reports: {page}")
    program = os.path.relpath(Path(sys.executable).with_name("jupyter"))
    if options.lab and sys.stdin.isatty() and sys.stdout.isatty():
        print("== opening JupyterLab; Ctrl+C ends it")
        as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # as in a container
        return subprocess.call([program, "lab", *as_root, str(copy)])
    print(f"to play with it: {program} lab {copy}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What `make examples` runs: every notebook in a kernel, each left as an HTML page with its reports."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

from nbclient.exceptions import CellExecutionError
from notebooks import FOLDER, code_cells, read, run, write_page

#: Notebooks that need more than the others.
NEEDS = {"09_tensorflow_tape": "tensorflow"}


class Bar:
    """One line that grows with the cells; on a terminal it is drawn over itself, in a log once for each notebook."""

    _WIDTH = 30

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._name = ""

    def notebook(self, name: str) -> None:
        """The next notebook's turn."""
        self._name = name
        self._draw()
        if not sys.stdout.isatty():
            print(flush=True)

    def cell(self) -> None:
        """One more cell has run."""
        self._done += 1
        if sys.stdout.isatty():
            self._draw()

    def end(self) -> None:
        """All have run."""
        self._name = "done"
        self._draw()
        print(flush=True)

    def _draw(self) -> None:
        filled = round(self._WIDTH * self._done / self._total)
        bar = "#" * filled + "." * (self._WIDTH - filled)
        start = "\r\033[K" if sys.stdout.isatty() else ""
        seconds = time.monotonic() - self._began
        print(f"{start}[{bar}] {self._done:3d}/{self._total} cells {seconds:4.0f} s  {self._name}", end="", flush=True)


def chosen(words: list[str]) -> dict[Path, Any]:
    """The notebooks whose name has one of the words in it, all where none is given."""
    found: dict[Path, Any] = {}
    for path in sorted(FOLDER.glob("[0-9]*.ipynb")):
        need = NEEDS.get(path.stem)
        if words and not any(word in path.stem for word in words):
            continue
        if need is not None and importlib.util.find_spec(need) is None:
            print(f"{path.name} is for an environment with {need}; this one has none")
            continue
        found[path] = read(path)
    return found


def main() -> int:
    """Run them; 1 where a cell failed that should not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/examples"), help="folder for the pages")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only the notebooks with this in their name")
    options = parser.parse_args()

    notebooks = chosen(options.words)
    if not notebooks:
        parser.error(f"no notebook has {' or '.join(options.words)} in its name")
    bar = Bar(sum(len(code_cells(notebook)) for notebook in notebooks.values()))
    for path, notebook in notebooks.items():
        bar.notebook(path.stem)
        try:
            run(notebook, finish=bar.cell)
        except CellExecutionError as error:
            print(f"\n{path.name}: a cell failed\n{error}", file=sys.stderr)
            return 1
        write_page(notebook, options.output / f"{path.stem}.html")
    bar.end()
    print(f"the notebooks with their reports: {options.output / min(path.stem for path in notebooks)}.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())

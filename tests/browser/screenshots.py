"""Makes the README's pictures from a real run: `python tests/browser/screenshots.py docs/images`.

Needs what the browser tests need: the built front end and Chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from lab import Notebook
from PIL import Image
from playwright.sync_api import sync_playwright
from server import ROOT, JupyterServer, code_cell

sys.path.insert(0, str(ROOT / "tests"))
from code_blocks import blocks

# The cell that the README shows: its text tells what the picture has.
(CELL,) = (
    block.code.rstrip("\n")
    for block in blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    if block.code.startswith("%%autograd_watch")
)
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
# The picture is of the panel: the traceback above it and the tools of the cell are left out.
PICTURE = """
.jp-OutputArea-child:has([data-mime-type="application/vnd.jupyter.stderr"]), .jp-cell-toolbar { display: none !important; }
"""


def shoot(folder: Path) -> None:
    """Write panel_light.png and panel_dark.png into `folder`."""
    path = shutil.which("chromium")
    if path is None:
        sys.exit("Chromium is missing: apt-get install --no-install-recommends chromium fonts-dejavu-core")
    folder.mkdir(parents=True, exist_ok=True)
    server = JupyterServer(Path(tempfile.mkdtemp()) / "jupyter")
    try:
        server.wait()
        setup = code_cell("%load_ext jupyter_inplace\nimport torch\ntorch.manual_seed(0);")
        name = server.write("picture.ipynb", [setup, code_cell(CELL, identity="cell-2")])
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
            # Twice as many points as the page has: sharp on a fine screen too.
            page = browser.new_page(
                viewport={"width": 1000, "height": 1800}, device_scale_factor=2, reduced_motion="reduce"
            )
            notebook = Notebook(page).open(server.lab(name), kernel=True)
            notebook.run(0)
            notebook.run(1)
            notebook.panel(1).wait_for(timeout=60_000)
            notebook.panel(1).locator('[data-ji="fix"]').first.wait_for(timeout=120_000)
            page.wait_for_function("() => document.querySelector('[data-ji=proving]') === null", timeout=120_000)
            page.add_style_tag(content=PICTURE)
            for theme in ("Light", "Dark"):
                page.evaluate(
                    "t => window.jupyterapp.commands.execute('apputils:change-theme', {theme: t})",
                    f"JupyterLab {theme}",
                )
                page.wait_for_timeout(1500)
                picture = folder / f"panel_{theme.lower()}.png"
                notebook.cell(1).screenshot(path=picture)
                # A few flat colours: a palette holds them in a third of the bytes.
                Image.open(picture).convert("RGB").quantize(128).save(picture, optimize=True)
            browser.close()
    finally:
        server.stop()


if __name__ == "__main__":
    shoot(Path(sys.argv[1]))

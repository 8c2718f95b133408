"""What is imported when, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

SOURCE = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("%load_ext jupyter_inplace")
def loaded():
    return [name for name in ("jupyter_inplace.record.session", "jupyter_inplace.explain.backward.analyst") if name in sys.modules]
shell.run_cell("x = 1")
assert not loaded() and "torch" not in sys.modules
shell.run_cell("import torch")
before = loaded()
assert len(before) == 2
shell.run_cell("import sys")
shell.run_cell(
    "%%autograd_watch --no-verify\\nbegan = set(sys.modules)\\n"
    "from jupyter_inplace.record.here import trace_here; wired = trace_here().stack.wired"
)
assert shell.user_ns["wired"]
new = [name for name in shell.user_ns["began"] - NAMES if name.startswith("jupyter_inplace")]
assert not new, new
count = len(shell.events.callbacks["post_run_cell"])
shell.run_cell("%unload_ext jupyter_inplace")
shell.run_cell("%reload_ext jupyter_inplace")
shell.run_cell("y = 1")
assert len(shell.events.callbacks["post_run_cell"]) == count
print("as it should be")
"""


def test_after_the_cell_that_imports_torch():
    source = SOURCE.replace("before = loaded()", "before = loaded(); NAMES = set(sys.modules)")
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert ran.stdout.endswith("as it should be\n"), ran.stdout + ran.stderr

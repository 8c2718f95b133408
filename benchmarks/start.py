"""What there is to wait for before anything is watched: the extension, the first watched cell, the sandbox's fork.

Each figure is the least of several fresh processes; what a process counts it prints as JSON.

    python -m benchmarks.start
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.targets import Target, grid, judge

_TURNS = 3

_LOAD = """
import json, sys, time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
start = time.perf_counter()
shell.run_line_magic("load_ext", "jupyter_inplace")
print(json.dumps({"ms": (time.perf_counter() - start) * 1e3, "torch": float("torch" in sys.modules)}))
"""

# The cell's first statement tells when the program itself begins.
_CELL = """
import json, sys, time
import torch
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
torch.ones(2, requires_grad=True).exp().sum().backward()
shell.run_line_magic("load_ext", "jupyter_inplace")
body = "import time; began = time.perf_counter()"
def start(head):
    before = time.perf_counter()
    shell.run_cell(head + body)
    return (shell.user_ns["began"] - before) * 1e3
def whole():
    before = time.perf_counter()
    shell.run_cell("pass")
    return (time.perf_counter() - before) * 1e3
warm = whole()
warm -= min(whole() for _ in range(5))
plain = min(start("") for _ in range(5))
first = start("%%autograd_watch --no-verify\\n") - plain
second = min(start("%%autograd_watch --no-verify\\n") for _ in range(5)) - plain
before = set(sys.modules)
shell.run_cell("%%autograd_watch --no-verify\\nx = torch.ones(3, requires_grad=True) * 2; x.add_(1); x.sum().backward()")
heavy = [name for name in set(sys.modules) - before if name.startswith(("torch._dynamo", "torch._inductor", "sympy"))]
print(json.dumps({"warm": warm, "first": first, "second": second, "heavy": len(heavy)}))
"""

_FORK = """
import json, os, time
import torch
from jupyter_inplace.rewrite.sandbox.snapshot import Snapshot
state = {"x": torch.ones(MB * 250_000)}
Snapshot.take({}).close()
def touch():
    start = time.perf_counter()
    state["x"].add_(1)
    return (time.perf_counter() - start) * 1e3
plain = min(touch() for _ in range(3))
start = time.perf_counter()
snapshot = Snapshot.take(state)
fork = (time.perf_counter() - start) * 1e3
copied = touch()
snapshot.close()
print(json.dumps({"fork": fork, "plain": plain, "copied": copied}))
"""


def _fresh(code: str, cache: str) -> dict[str, float]:
    """What a process of its own prints. Modules are compiled into the folder `cache`, as an installation has them."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"a process of the benchmark failed:\\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _least(code: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        _fresh(code, cache)
        found = [_fresh(code, cache) for _ in range(_TURNS)]
    return {name: min(one[name] for one in found) for name in found[0]}


def main() -> int:
    """Print the figures and whether each target is met; 1 where one is missed."""
    load, cell = _least(_LOAD), _least(_CELL)
    rows = [
        ["%load_ext jupyter_inplace", f"{load['ms']:.1f} ms"],
        ["after the first cell that leaves torch imported", f"{cell['warm']:.1f} ms"],
        ["first watched cell, until its first statement", f"{cell['first']:.1f} ms"],
        ["later watched cells", f"{cell['second']:.1f} ms"],
    ]
    targets = [
        Target("%load_ext jupyter_inplace", load["ms"], 100.0, " ms"),
        Target("modules of torch that it imports", load["torch"], 0.0),
        Target("the first watched cell's own start", cell["first"], 20.0, " ms"),
        Target("heavy modules imported by the first watched operations", cell["heavy"], 0.0),
    ]
    if sys.platform == "linux":
        for size in (64, 1000):
            fork: dict[str, Any] = _least(_FORK.replace("MB", str(size)))
            rows.append([f"fork of the sandbox at {size} MB of tensors", f"{fork['fork']:.1f} ms"])
            rows.append(["  a write to all of them, without a fork", f"{fork['plain']:.1f} ms"])
            rows.append(["  the first one after it, which copies each page", f"{fork['copied']:.1f} ms"])
        targets.append(Target("the fork of the sandbox at 1 GB", fork["fork"], 40.0, " ms"))
    print(grid(["start", "takes"], rows), end="\n\n")
    return judge(targets)


if __name__ == "__main__":
    sys.exit(main())

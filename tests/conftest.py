"""What tests of several rooms share."""

from __future__ import annotations

import atexit
import io
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from tripwired import no_tripwires, nothing_compiled, own_record, tripwires, way

from jupyter_inplace import magic

__all__ = ["no_tripwires", "nothing_compiled", "own_record", "tripwires", "way"]

# One thread: the machine's cores are for the test processes, and sums come out the same every time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The default of the coming jupyter_core, without its warning.
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
# A process that a script starts in the background ignores Ctrl+C, and so does what it starts: tests of Ctrl+C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Faults of ours, in this process and in those that tests start, are appended to a file.
_FAULTS = Path(tempfile.mkdtemp(prefix="ji-faults-")) / "faults"
os.environ["JUPYTER_INPLACE_DEBUG"] = str(_FAULTS)
atexit.register(shutil.rmtree, _FAULTS.parent, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_faults(request) -> Iterator[None]:
    """A fault of ours fails the test, unless the test is about faults (`@pytest.mark.faulty`)."""
    _FAULTS.unlink(missing_ok=True)
    yield
    if _FAULTS.exists() and request.node.get_closest_marker("faulty") is None:
        pytest.fail(_FAULTS.read_text(encoding="utf-8"))


@dataclass
class Ran:
    """What came of a cell."""

    result: ExecutionResult
    out: str
    err: str


class Shell:
    """A plain InteractiveShell, driven as a front end drives it."""

    def __init__(self) -> None:
        self.ip = InteractiveShell.instance()

    def run(self, cell: str, **keywords: Any) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            result = self.ip.run_cell(cell, **{"store_history": True, **keywords})
        return Ran(result, out.getvalue(), err.getvalue())

    @property
    def ns(self) -> dict[str, Any]:
        return self.ip.user_ns


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Iterator[Shell]:
    """A shell without the extension."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = Shell()
    shell.ip.run_line_magic("colors", "nocolor")
    yield shell
    atexit.unregister(shell.ip.atexit_operations)
    shell.ip.atexit_operations()
    with suppress(AttributeError):  # IPython 7 leaves it open, and Python 3.13 says so
        shell.ip.history_manager.db.close()
    InteractiveShell.clear_instance()


@pytest.fixture
def shell(bare) -> Iterator[Shell]:
    """A shell with the extension."""
    magic.load(bare.ip)
    yield bare
    magic.unload(bare.ip)

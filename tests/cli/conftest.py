"""The command line as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Ended:
    """A process that has ended."""

    status: int
    out: str
    err: str


class Terminal:
    """Runs commands in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def script(self, text: str, name: str = "train.py") -> str:
        """Write a script; returns its name."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    def python(self, *words: str, **environment: str) -> Ended:
        """Run Python with these words."""
        ended = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONHASHSEED": "0", **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def watched(self, *words: str, **environment: str) -> Ended:
        """Run ``python -m jupyter_inplace`` with these words."""
        return self.python("-m", "jupyter_inplace", *words, **environment)


@pytest.fixture
def terminal(tmp_path) -> Terminal:
    return Terminal(tmp_path)

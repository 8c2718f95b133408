"""The private directory of a run."""

from __future__ import annotations

import os
import tempfile


def use_directory(directory: str) -> None:
    """Have temporary files, and what torch keeps from one process to the next, made in a private directory."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        os.environ[name] = directory
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        os.environ[name] = os.path.join(directory, name.lower())  # noqa: PTH118
    tempfile.tempdir = directory

"""The private directory of a run."""

from __future__ import annotations

import os
import tempfile


def use_directory(directory: str) -> None:
    """Use a private directory for temporary files and for torch's caches."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        os.environ[name] = directory
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        os.environ[name] = os.path.join(directory, name.lower())  # noqa: PTH118
    tempfile.tempdir = directory

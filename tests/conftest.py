"""What tests of several rooms share."""

from __future__ import annotations

import os

# One thread: the machine's cores are for the test processes, and sums come out the same every time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The browser's and kernel's messages: the default of the coming jupyter_core, without its warning.
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")

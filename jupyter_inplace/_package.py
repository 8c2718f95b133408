"""Where this package lies: frames whose code lies there are ours, not the user's."""

from __future__ import annotations

import os

#: The folder of the package, with the separator at its end. Compared with the file names of code objects, which are strings.
FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep  # noqa: PTH100, PTH120

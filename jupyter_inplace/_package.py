"""The folder of this package: a frame whose code is in there is ours, not the user's."""

from __future__ import annotations

import os

#: The folder of the package, with a separator at its end. A string, since it is compared with the file names of code objects.
FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep  # noqa: PTH100, PTH120

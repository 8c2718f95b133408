"""Will the cell bring a framework that can be watched."""

from __future__ import annotations

import re

#: torch, torchvision, torchmetrics, tensorflow ... in front of any comment or string of the line.
_MENTION = re.compile(r"^[^#'\"\n]*\b(?:torch|tensorflow)", re.MULTILINE)


def mentions_framework(source: str) -> bool:
    """Whether a cell seems to name torch, TensorFlow or one of their family. A miss costs nothing: `OnArrival` waits."""
    return _MENTION.search(source) is not None

"""Whether a cell will import a framework that can be watched."""

from __future__ import annotations

import re

#: torch, torchvision, torchmetrics, tensorflow ... before any comment or string on the line.
_MENTION = re.compile(r"^[^#'\"\n]*\b(?:torch|tensorflow)", re.MULTILINE)


def mentions_framework(source: str) -> bool:
    """Whether a cell seems to name torch, TensorFlow or a library of either. A wrong no does no harm: `OnArrival` waits for the import."""
    return _MENTION.search(source) is not None

"""Will the cell bring torch."""

from __future__ import annotations

import re

from jupyter_inplace._arrival import OnArrival

__all__ = ["OnArrival", "mentions_torch"]

#: torch, torchvision, torchmetrics ... in front of any comment or string of the line.
_MENTION = re.compile(r"^[^#'\"\n]*\btorch", re.MULTILINE)


def mentions_torch(source: str) -> bool:
    """Whether a cell seems to name torch or one of its family. A miss costs nothing: `OnArrival` waits for it."""
    return _MENTION.search(source) is not None

"""Numbers as people write them."""

from __future__ import annotations

from typing import Any

import numpy as np


def number(vector: Any) -> str:
    """A gradient of one element as a number (2.0, 3.5), a longer one as its norm."""
    if vector.size != 1:
        return f"a norm of {_plain(float(np.linalg.norm(vector)))}"
    value = vector.ravel()[0]
    return str(complex(value)) if vector.dtype.kind == "c" else _plain(float(value))


def _plain(value: float) -> str:
    text = f"{value:.6g}"
    return text if any(c in text for c in ".en") else text + ".0"

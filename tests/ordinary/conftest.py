"""The shell that the cells here run in, and what programs with a part out of sight need."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cell_oracle import cells

__all__ = ["cells"]


@pytest.fixture
def own_compiled_code():
    """None is left for other tests."""
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def pool():
    """A thread from before the watch."""
    with ThreadPoolExecutor(1) as one:
        one.submit(int).result()
        yield one

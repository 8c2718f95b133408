"""What a cell binds before it reads it."""

from __future__ import annotations

import pytest

from jupyter_inplace.rewrite.rewind.rebound import rebound_names

CELLS = {
    "an assignment": ("h = w * 2\nloss = h.sum()", "h loss"),
    "read first": ("h = h * 2", ""),
    "read later": ("h = 1\nh = h + 1", "h"),
    "augmented": ("h += 1", ""),
    "augmented after it was bound": ("h = 1\nh += 1", "h"),
    "several": ("(a, [b, *c]), d.e, f[0] = g", "a b c"),
    "perhaps": ("if x:\n    h = 1\nfor i in y:\n    k = 2\ntry:\n    z = 1\nfinally:\n    pass", ""),
    "a with block's name": ("with open(f) as g, k:\n    pass", "g"),
    "read in a function": ("def f():\n    return h\nh = 1", "f"),
    "read in a function after it": ("h = 1\ndef f():\n    return h", "f h"),
    "imports": ("import a.b, c as d\nfrom e import f as g", "a d g"),
    "annotated": ("h: int = 1\nk: int", "h"),
    "deleted": ("del h\nh = 1", ""),
    "magics": ("%%autograd_watch\n%time h = 1\n!ls", "h"),
    "no Python": ("h = = 1", ""),
}


@pytest.mark.parametrize("cell", CELLS)
def test_names(cell):
    source, expected = CELLS[cell]
    assert rebound_names(source) == set(expected.split())

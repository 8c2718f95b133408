"""Whether a class has living instances, by the count of references to it."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from jupyter_inplace.record.base.instances import may_have_instances

_CLASSES = """
class Plain:
    def __init__(self):
        self.handles = {}
class Slotted:
    __slots__ = ("a", "b")
class Bare:
    __slots__ = ()
"""


@pytest.fixture
def module() -> types.ModuleType:
    """Classes to which nothing else refers."""
    made = types.ModuleType("made")
    exec(_CLASSES, vars(made))
    return made


@pytest.mark.parametrize("name", ["Plain", "Slotted", "Bare"])
def test_each_living_instance_is_seen_and_none_is_made_up(module, name):
    assert not may_have_instances(module, name)
    kept = [getattr(module, name)() for _ in range(3)]
    while kept:
        assert may_have_instances(module, name)
        kept.pop()
    assert not may_have_instances(module, name)


def test_a_class_that_somebody_else_holds_may_have_some(module):
    other = module.Plain
    assert may_have_instances(module, "Plain")
    del other
    assert not may_have_instances(module, "Plain")


_CHECKPOINTED = """
import torch
from torch.utils.checkpoint import checkpoint
from jupyter_inplace.record.base import torch_private as private

w = torch.ones(3, requires_grad=True)
assert not private.checkpoints_may_wait()
y = checkpoint(torch.exp, w, use_reentrant=False)
assert private.checkpoints_may_wait()
y.sum().backward(retain_graph=True)
assert private.checkpoints_may_wait()
del y
assert not private.checkpoints_may_wait()
print("seen")
"""


def test_a_checkpointed_function_waits_for_its_backward():
    """In a process of its own: a graph that somebody keeps is an instance too."""
    done = subprocess.run(
        [sys.executable, "-c", _CHECKPOINTED], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "seen", done.stderr

"""Tensor classes and what makes their objects: constructors, `as_subclass`, parameters, buffers, the old tensor types."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from sameness import same
from torch import nn

from jupyter_inplace import preserve_saved


class Named(torch.Tensor):
    pass


class OwnNew(torch.Tensor):
    """Makes itself by `super().__new__`, with an attribute."""

    def __new__(cls, data, note="", **options):
        made = super().__new__(cls, data, **options)
        made.note = note
        return made

    def __init__(self, data, note="", **options):
        pass


class Below(Named):
    pass


def computed():
    return torch.randn(2, 3) @ torch.randn(3, 2)


def graded():
    return torch.randn(2, requires_grad=True) * 2


WAYS = {
    "an intermediate result": lambda: Named(computed()),
    "a fresh tensor": lambda: Named(torch.ones(2)),
    "a named tensor": lambda: (t := torch.ones(2), Named(t)),
    "with a graph": lambda: Named(graded()),
    "a parameter": lambda: Named(nn.Parameter(torch.ones(2))),
    "numbers": lambda: Named([1.0, 2.0]),
    "numbers in numbers": lambda: Named([[1.0, 2.0], (3, 4)]),
    "a size": lambda: Named(3).shape,
    "two sizes": lambda: Named(2, 3).shape,
    "nothing": lambda: Named(),
    "an array": lambda: Named(np.ones(2, dtype=np.float32)),
    "tensors in a list": lambda: Named([torch.tensor(1.0), torch.tensor(2.0)]),
    "a class of its own making": lambda: OwnNew(computed(), note="n").note,
    "a class below": lambda: Below(computed()),
    "one from another": lambda: Below(Named(computed())),
    "the same again": lambda: Named(Named(computed())),
    "by the base class": lambda: Named.__new__(Named, computed()),
    "as a subclass": lambda: computed().as_subclass(Named),
    "by `_make_subclass`": lambda: torch.Tensor._make_subclass(Named, computed()),
    "torch.Tensor": lambda: torch.Tensor(computed()),
    "torch.FloatTensor": lambda: torch.FloatTensor(computed()),
    "torch.LongTensor": lambda: torch.LongTensor([1, 2]),
    "torch.Tensor.new": lambda: computed().new(computed()),
    "torch.as_tensor": lambda: torch.as_tensor(computed()),
    "a parameter of a result": lambda: nn.Parameter(computed()),
    "a parameter of a class": lambda: nn.Parameter(Named(computed())),
    "a buffer": lambda: nn.Buffer(computed()),
    "a lazy parameter": lambda: _lazy(),
    "copied": lambda: copy.deepcopy(Named(computed())),
    "pickled": lambda: pickle.loads(pickle.dumps(Named(computed()))),
    "a wrong type": lambda: Named("abc"),
    "another device": lambda: Named(torch.ones(2), device="meta"),
}


def _lazy():
    module = nn.LazyLinear(2)
    module(computed())
    return module


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.usefixtures("way")
def test_objects_are_made_as_ever(name):
    def program():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return WAYS[name]()

    same(program)


@pytest.mark.usefixtures("way")
def test_training_through_a_class():
    def program():
        w = torch.randn(3, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1)
        for _ in range(4):
            h = Named(w * 2)
            h.mul_(3)
            Named(h.sum()).backward()
            optimizer.step()
        return w, w.grad

    same(program)


@pytest.mark.usefixtures("way")
def test_a_write_through_an_object_of_a_class_is_found():
    def program():
        w = torch.randn(3, requires_grad=True)
        h = w.exp()
        loss = h.sum()
        Named(h).mul_(2)
        loss.backward()

    assert same(program).verdict == "breaks"


def test_in_another_thread():
    def program():
        found = []
        thread = threading.Thread(target=lambda: found.append(Named(computed())))
        thread.start()
        thread.join()
        return found

    same(program)


def test_under_preserve_saved():
    def program():
        with preserve_saved():
            return Named(computed()), OwnNew([1.0]).note

    assert type(program()[0]) is Named
    same(program)


def test_the_constructor_is_torchs_own_afterwards():
    before = torch.Tensor.__new__
    same(lambda: Named(computed()))
    assert torch.Tensor.__new__ is before
    assert "__new__" not in vars(torch.Tensor)

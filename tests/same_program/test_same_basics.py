"""The comparison itself, and the plainest programs."""

from __future__ import annotations

import pytest
import torch
from sameness import compare, run, same


def test_a_difference_in_one_bit_is_found():
    value = torch.ones(3)

    def program():
        return value.clone()

    plain = run(program)
    value[1] = 1 + 2**-23
    with pytest.raises(AssertionError):
        compare(plain, run(program))


def test_backward():
    def program():
        x = torch.randn(4, 5, requires_grad=True)
        w = torch.randn(5, 3, requires_grad=True)
        y = (x @ w).relu_().sigmoid()
        y.sum().backward()
        return x, w, y

    report = same(program)
    assert report.verdict == "harmless"


def test_the_error():
    def program():
        x = torch.randn(4, requires_grad=True)
        y = x.sigmoid()
        y.mul_(2)
        y.sum().backward()

    report = same(program)
    assert report.verdict == "breaks"

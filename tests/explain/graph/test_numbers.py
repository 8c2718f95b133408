"""Norms, differences and cosines of gradients against NumPy, and where rounding ends and a difference begins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jupyter_inplace.explain.graph.numbers import compare, cosine, norm, same_values

# Large enough for NumPy to square them.
finite = st.floats(-1e6, 1e6).map(lambda x: 0.0 if abs(x) < 1e-100 else x)
vectors = st.lists(finite, min_size=1, max_size=6)


@given(vectors)
def test_norm_is_euclidean(values):
    assert norm(torch.tensor(values, dtype=torch.float64)) == pytest.approx(np.linalg.norm(np.array(values)), rel=1e-12)


@pytest.mark.parametrize("factor", [1e-200, 1e-310, 1e200])
def test_norm_of_numbers_whose_squares_are_no_numbers(factor):
    assert norm(torch.tensor([3.0, 4.0], dtype=torch.float64) * factor) == pytest.approx(5 * factor, rel=1e-6)


def test_norm_of_special_gradients():
    assert norm(None) == 0.0
    assert norm(torch.zeros(0)) == 0.0
    assert norm(torch.tensor(3 + 4j)) == pytest.approx(5.0)
    assert norm(torch.eye(4).to_sparse()) == pytest.approx(2.0)
    assert math.isnan(norm(torch.tensor([1.0, math.nan])))
    assert norm(torch.tensor([1.0, math.inf])) == math.inf
    assert norm(torch.tensor([6e4, 6e4], dtype=torch.float16)) == pytest.approx(6e4 * math.sqrt(2), rel=1e-3)


@given(vectors, vectors)
def test_relative_difference_and_cosine(left, right):
    n = min(len(left), len(right))
    a, b = np.array(left[:n]), np.array(right[:n])
    status, relative, angle = compare(torch.tensor(a), torch.tensor(b))
    size = np.linalg.norm(b)
    if (a == b).all():
        assert (status, relative) == ("ok", 0.0)
    elif size > 0:
        assert relative == pytest.approx(np.linalg.norm(a - b) / size, rel=1e-9)
        assert (status == "ok") == (relative <= 16 * np.finfo(float).eps)
    else:
        assert relative == math.inf
    if np.linalg.norm(a) > 0 and size > 0:
        expected = (a / np.linalg.norm(a)) @ (b / size)
        assert angle == pytest.approx(expected, abs=1e-9)
        assert cosine(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64])
def test_rounding_is_no_difference(dtype):
    b = torch.linspace(1, 2, 7, dtype=torch.float64).to(dtype)
    eps = torch.finfo(dtype).eps
    assert compare(b * (1 + 4 * eps), b)[0] == "ok"
    assert compare(b * (1 + 64 * eps), b)[0] == "wrong"


def test_what_a_sum_rounds_away_is_no_difference():
    a, b = torch.tensor([1e-18, 2e-18], dtype=torch.float64), torch.tensor([2e-18, 1e-18], dtype=torch.float64)
    assert compare(a, b)[0] == "wrong"
    assert compare(a, b, scale=1.0)[0] == "ok"
    assert compare(a * 1e16, b * 1e16, scale=1.0)[0] == "wrong"


def test_lost_gradients():
    b = torch.tensor([1.0, 2.0])
    assert compare(None, b)[:2] == ("lost", 1.0)
    assert compare(torch.zeros(2), b)[:2] == ("lost", 1.0)
    assert compare(b, None) == ("wrong", math.inf, None)
    assert compare(torch.zeros(2), None)[0] == "ok"
    assert compare(None, torch.zeros(2))[0] == "ok"
    assert compare(None, None) == ("ok", 0.0, None)


def test_numbers_too_small_to_square():
    a, b = torch.tensor([2e-200], dtype=torch.float64), torch.tensor([1e-200], dtype=torch.float64)
    status, relative, angle = compare(a, b)
    assert status == "wrong"
    assert relative == pytest.approx(1.0)
    assert angle == pytest.approx(1.0)


@pytest.mark.parametrize(("a", "b", "status"), [
    ([math.nan, 1.0], [math.nan, 1.0], "ok"),
    ([math.nan, 1.0 + 2e-16], [math.nan, 1.0], "ok"),
    ([math.nan, 2.0], [math.nan, 1.0], "wrong"),
    ([math.nan, 1.0], [1.0, 1.0], "wrong"),
    ([1.0, 1.0], [math.nan, 1.0], "wrong"),
    ([math.inf, 1.0], [math.inf, 1.0], "ok"),
    ([math.inf, 1.0 + 2e-16], [math.inf, 1.0], "ok"),
    ([math.inf, 1.0], [-math.inf, 1.0], "wrong"),
    ([math.inf, 1.0], [1.0, 1.0], "wrong"),
    ([math.nan, 0.0], [1.0, 0.0], "wrong"),
])  # fmt: skip
def test_gradients_that_are_no_numbers(a, b, status):
    found, relative, angle = compare(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))
    assert found == status
    assert relative is None or not math.isnan(relative)
    assert angle is None or -1 <= angle <= 1


def test_gradients_of_different_shape():
    assert compare(torch.ones(2), torch.ones(3)) == ("wrong", None, None)
    assert cosine(torch.ones(2), torch.ones(3)) is None
    assert cosine(torch.zeros(2), torch.ones(2)) is None


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf]), min_size=1, max_size=4), st.data())
def test_same_values(values, data):
    other = data.draw(st.permutations(values))
    expected = all(x == y or (x != x and y != y) for x, y in zip(values, other, strict=True))
    assert same_values(torch.tensor(values), torch.tensor(other)) is expected


def test_same_values_of_other_layouts():
    assert same_values(torch.eye(3).to_sparse(), torch.eye(3).to_sparse()) is True
    assert same_values(torch.eye(3).to_sparse(), (2 * torch.eye(3)).to_sparse()) is False
    assert same_values(torch.ones(2), torch.ones(3)) is False
    assert same_values(torch.ones(2, 3), torch.ones(6)) is True  # an `unsqueeze_` or `t_` moves no value
    assert same_values(torch.tensor([True]), torch.tensor([False])) is False

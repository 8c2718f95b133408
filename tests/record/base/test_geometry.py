"""Byte ranges and shared bytes of strided views, against sets of byte numbers that Python counts one by one."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jupyter_inplace.record.base import geometry
from jupyter_inplace.record.base.geometry import WHOLE, View, byte_range, shared_bytes, view_of

ITEMS = 48  # 8-byte items of the storage that the views lie on
DTYPES = (torch.uint8, torch.int16, torch.float32, torch.float64, torch.complex64, torch.complex128, torch.bool)


def bytes_of(view: View) -> set[int]:
    """The oracle: every byte of every element."""
    covered: set[int] = set()
    for index in itertools.product(*(range(n) for n in view.shape)):
        start = (view.offset + sum(i * s for i, s in zip(index, view.stride, strict=True))) * view.itemsize
        covered.update(range(start, start + view.itemsize))
    return covered


@st.composite
def views(draw: st.DrawFn, itemsize: int | None = None) -> View:
    """Any geometry that torch allows on the storage, made without torch: overlapping, broadcast, empty, scattered."""
    size = itemsize if itemsize is not None else draw(st.sampled_from((1, 2, 4, 8, 16)))
    room = ITEMS * 8 // size
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    stride = tuple(draw(st.integers(0, 7)) for _ in shape)
    reach = sum((n - 1) * s for n, s in zip(shape, stride, strict=True) if n)
    assume(reach < room)
    return View(draw(st.integers(0, room - 1 - reach)), shape, stride, size)


@given(views())
def test_byte_range_is_the_hull_of_the_bytes(view):
    covered = bytes_of(view)
    assert view.byte_range == ((min(covered), max(covered) + 1) if covered else (0, 0))


@given(views(), views())
@settings(max_examples=400)
def test_shared_bytes_counts_the_common_bytes(a, b):
    assert shared_bytes(a, b) == len(bytes_of(a) & bytes_of(b))


@given(st.sampled_from((1, 2, 4, 8, 16)).flatmap(lambda size: st.tuples(views(size), views(size))))
@settings(max_examples=200)
def test_shared_bytes_of_one_item_size(pair):
    a, b = pair
    assert shared_bytes(a, b) == shared_bytes(b, a) == len(bytes_of(a) & bytes_of(b))


@given(views())
def test_a_view_shares_all_its_bytes_with_itself(view):
    assert shared_bytes(view, view) == len(bytes_of(view))


@st.composite
def tensors(draw: st.DrawFn, base: torch.Tensor) -> torch.Tensor:
    """A tensor on the storage of `base`, reached by the ways of a program: slices, transposes, expand, diagonal, other types."""
    t = base.view(draw(st.sampled_from(DTYPES)))
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(
            st.sampled_from(
                ("slice", "select", "view", "transpose", "unsqueeze", "expand", "diagonal", "unfold", "real")
            )
        )
        dims = t.dim()
        if kind == "slice" and dims:
            dim = draw(st.integers(0, dims - 1))
            start = draw(st.integers(0, t.shape[dim]))
            stop = draw(st.integers(start, t.shape[dim]))
            step = draw(st.integers(1, 3))
            t = t[(slice(None),) * dim + (slice(start, stop, step),)]
        elif kind == "select" and dims and t.shape[0]:
            t = t[draw(st.integers(0, t.shape[0] - 1))]
        elif kind == "view" and t.is_contiguous() and t.numel() % 2 == 0 and t.numel():
            t = t.view(2, t.numel() // 2)
        elif kind == "transpose" and dims > 1:
            t = t.transpose(0, dims - 1)
        elif kind == "unsqueeze" and dims < 4:
            t = t.unsqueeze(draw(st.integers(0, dims)))
        elif kind == "expand" and 1 in t.shape:
            t = t.expand([3 if n == 1 else n for n in t.shape])
        elif kind == "diagonal" and dims > 1:
            t = t.diagonal(draw(st.integers(-1, 1)))
        elif kind == "unfold" and dims and t.shape[-1] > 1:
            t = t.unfold(-1, 2, 1)
        elif kind == "real" and t.is_complex():
            t = torch.view_as_real(t) if draw(st.booleans()) else t.imag
        if t.numel() > 4096:
            break
    return t


def addresses(t: torch.Tensor) -> set[int]:
    """The oracle: the address that torch itself gives for every single element."""
    start = t.untyped_storage().data_ptr()
    covered: set[int] = set()
    for index in itertools.product(*(range(n) for n in t.shape)):
        first = t[index].data_ptr() - start
        covered.update(range(first, first + t.element_size()))
    return covered


@given(st.data())
@settings(max_examples=150)
def test_byte_range_of_tensors_made_by_views(data):
    t = data.draw(tensors(torch.zeros(ITEMS, dtype=torch.float64)))
    covered = addresses(t)
    lo, hi = byte_range(t)
    if covered:
        assert (lo, hi) == (min(covered), max(covered) + 1)
    else:
        assert lo == hi


@given(st.data())
@settings(max_examples=150)
def test_shared_bytes_of_tensors_made_by_views(data):
    base = torch.zeros(ITEMS, dtype=torch.float64)
    a, b = data.draw(tensors(base)), data.draw(tensors(base))
    assert shared_bytes(view_of(a), view_of(b)) == len(addresses(a) & addresses(b))


@given(st.data())
@settings(max_examples=100)
def test_a_write_changes_only_what_it_shares(data):
    """What the copy on write leans on: memory outside of the range of a write stays what it was."""
    base = torch.zeros(ITEMS, dtype=torch.float64)
    written = data.draw(tensors(base))
    raw = base.view(torch.uint8)
    with torch.no_grad():
        raw.fill_(1)
        before = raw.clone()
        with contextlib.suppress(RuntimeError):  # torch refuses to write where elements share memory
            written.fill_(0)
    changed = {i for i, (x, y) in enumerate(zip(before.tolist(), raw.tolist(), strict=True)) if x != y}
    lo, hi = byte_range(written)
    assert all(lo <= i < hi for i in changed)
    assert len(changed) <= shared_bytes(view_of(written), view_of(base))


def test_columns_of_a_matrix_share_nothing():
    m = torch.zeros(4, 3)
    (left_lo, left_hi), (right_lo, right_hi) = byte_range(m[:, 0]), byte_range(m[:, 1])
    assert left_lo < right_hi
    assert right_lo < left_hi
    assert shared_bytes(view_of(m[:, 0]), view_of(m[:, 1])) == 0
    assert shared_bytes(view_of(m[:, 0]), view_of(m[1])) == 4


def test_past_the_limit_the_range_stands_for_the_count(monkeypatch):
    monkeypatch.setattr(geometry, "_EXACT_LIMIT", 16)
    m = torch.zeros(4, 3)
    assert shared_bytes(view_of(m[:, 0]), view_of(m[:, 1])) == 4 * 9  # from the 1st of column 1 to the last of column 0


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_without_strides_a_tensor_overlaps_everything(layout):
    t = torch.eye(3).to_sparse(layout=layout)
    assert view_of(t) is None
    assert byte_range(t) == WHOLE


def test_empty_views_overlap_nothing():
    empty, full = View(3, (0, 2), (2, 1), 4), View(0, (8,), (1,), 4)
    assert empty.byte_range == (0, 0)
    assert shared_bytes(empty, full) == shared_bytes(full, empty) == 0

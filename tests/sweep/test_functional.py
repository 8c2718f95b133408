"""Every operator of torch's list, forward and backward: the watch changes nothing and raises no alarm."""

from __future__ import annotations

import pytest
import torch
from sweep_cases import Case, Outcome, case, operator_names, same_tensors

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # many operators warn of their own; what they warn of is not asked here

# Operators whose result is memory as it lies.
UNINITIALIZED = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}

# What an *empty* dispatch mode changes, and a watch does not. Each stands here with what the mode changes.
EMPTY_MODE_CHANGES = {
    "linalg_matrix_rank": "versions",  # written by `out=` inside
    "linalg_matrix_rank_hermitian": "versions",
    "nn_functional_one_hot": "versions",
}


def compared(a: Outcome, b: Outcome, name: str) -> dict[str, bool]:
    """Which parts of two outcomes are equal."""
    return {
        "error": (a.stage, a.error, a.text) == (b.stage, b.error, b.text),
        "grads": same_tensors(a.grads, b.grads),
        "values": name in UNINITIALIZED or same_tensors(a.values, b.values),
        "versions": a.versions == b.versions,
    }


@pytest.mark.parametrize("name", operator_names())
def test_nothing_changes_and_nothing_alarms(name):
    c: Case = case(name)
    plain, watched = c.plain(), c.watched()
    differing = {part for part, equal in compared(plain, watched, name).items() if not equal}
    assert differing == set()
    assert watched.report.verdict == "harmless", watched.report.summary
    assert not [note for note in watched.report.blind_spots if "failed" in note or "missing" in note]


@pytest.mark.parametrize("name", sorted(EMPTY_MODE_CHANGES))
def test_an_empty_mode_changes_more(name):
    c: Case = case(name)
    plain, empty = c.plain(), c.empty_mode()
    part = EMPTY_MODE_CHANGES[name]
    assert compared(plain, empty, name) == {"error": True, "grads": True, "values": True, "versions": True} | {
        part: False
    }


def test_most_operators_are_differentiated():
    """The sweep would be worth nothing if its programs raised or had no gradients."""
    names = operator_names()
    assert len(names) > 600
    assert len(operator_names(differentiable=True)) > 500
    outcomes = [case(name).plain() for name in names[::10]]
    assert sum(bool(o.grads) for o in outcomes) > len(outcomes) // 2
    assert sum(o.raised() for o in outcomes) < len(outcomes) // 20
    assert any(torch.is_tensor(g) and bool(g.any()) for o in outcomes for g in o.grads)

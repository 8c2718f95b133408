"""Which of the iterations of a loop a gradient row shows."""

from __future__ import annotations

import pytest

from jupyter_inplace.explain.backward.facts import BackwardFacts, GradientFact
from jupyter_inplace.explain.report.gradients import GradientTable


def rounds(*differences):
    """A table of one task that ran once for each (status, relative difference)."""
    facts = []
    for order, (status, relative) in enumerate(differences):
        facts.append(BackwardFacts(["loss"], order, None, 0.0))
        facts[-1].add_row(
            GradientFact(
                task="loss",
                leaf="w",
                status=status,
                norm_as_run=float(order),
                norm_reference=float(order),
                relative_difference=relative,
                cosine=1.0,
            )
        )
    return GradientTable(facts).rows


@pytest.mark.parametrize("noise", [(0.0, 0.0, 3e-8), (3e-8, 0.0, 0.0), (0.0, 6e-8, 3e-8)])
def test_of_right_ones_the_first_whatever_their_rounding(noise):
    (row,) = rounds(*(("ok", relative) for relative in noise))
    assert (row.occurrence, row.norm_as_run) == (0, 0.0)


def test_of_right_ones_the_one_beside_a_wrong_one():
    facts = [BackwardFacts(["loss"], order, None, 0.0) for order in range(3)]
    for order, fact in enumerate(facts):
        fact.add_row(GradientFact("loss", "w", "ok", float(order), float(order), 0.0))
        fact.add_row(GradientFact("loss", "v", "raises" if order == 1 else "ok"))
    assert [row.occurrence for row in GradientTable(facts).rows] == [1, 1]


def test_of_wrong_ones_the_worst():
    (row,) = rounds(("ok", 0.0), ("wrong", 0.1), ("wrong", 0.4), ("wrong", 0.2))
    assert (row.occurrence, row.relative_difference) == (2, 0.4)


def test_one_that_raises_is_worse_than_any_wrong_one():
    (row,) = rounds(("wrong", 0.4), ("raises", None), ("raises", None))
    assert (row.occurrence, row.status) == (1, "raises")

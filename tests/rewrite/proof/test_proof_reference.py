"""When a control run is taken for the cell of the report."""

from __future__ import annotations

import dataclasses
import math

import pytest

from jupyter_inplace.report import Gradient, Mutation, Report
from jupyter_inplace.rewrite.proof.events import Ending
from jupyter_inplace.rewrite.proof.reference import NoReferenceError, check_control
from jupyter_inplace.rewrite.proof.runs import Run
from jupyter_inplace.rewrite.proof.trial import Trial
from jupyter_inplace.rewrite.sandbox.outcome import Outcome

NAN, INF = math.nan, math.inf


def report_of(**norms):
    rows = tuple(
        Gradient(task="loss", leaf=leaf, status="wrong", norm_as_run=norm, norm_reference=norm)
        for leaf, norm in norms.items()
    )
    write = Mutation(id=0, op="aten.mul_.Tensor", tensor="h", verdict="corrupts")
    return Report(verdict="corrupts", mutations=(write,), gradients=rows)


def control_of(report):
    return Run(Trial(source="", manner="watched"), Outcome(status="finished"), (), Ending(report=report))


@pytest.mark.parametrize(
    ("before", "again"),
    [
        ({"w": 1.0, "b": 3e-8}, {"w": 1.0, "b": 9e-8}),  # b is zero, and this its rounding
        ({"w": 1.0}, {"w": 1.0005}),
        ({"w": NAN}, {"w": NAN}),
        ({"w": INF}, {"w": INF}),
        ({"w": 0.0}, {"w": 0.0}),
    ],
)
def test_the_same_numbers_but_for_rounding(before, again):
    check_control(control_of(report_of(**again)), report_of(**before))


@pytest.mark.parametrize(
    ("before", "again", "leaf"),
    [
        ({"w": 1.0, "b": 1e-3}, {"w": 1.0, "b": 2e-3}, "b"),
        ({"w": 1.0}, {"w": 1.01}, "w"),
        ({"w": 3e-8}, {"w": 9e-8}, "w"),  # small, and nothing large beside it
        ({"w": 1.0}, {"w": NAN}, "w"),
        ({"w": INF}, {"w": 1.0}, "w"),
    ],
)
def test_other_numbers_are_another_cell(before, again, leaf):
    with pytest.raises(NoReferenceError, match=f"the gradient of `{leaf}` for `loss` comes out differently each time"):
        check_control(control_of(report_of(**again)), report_of(**before))


def test_rows_of_two_iterations_are_not_compared():
    before, again = report_of(w=1.0), report_of(w=3.0)
    rows = [dataclasses.replace(report.gradients[0], occurrence=i) for i, report in enumerate((before, again))]
    again = dataclasses.replace(again, gradients=(rows[1],))
    check_control(control_of(again), dataclasses.replace(before, gradients=(rows[0],)))

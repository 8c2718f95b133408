"""The report that people get is the bare data and what can be done with it."""

from __future__ import annotations

import dataclasses

import pytest

import jupyter_inplace
from jupyter_inplace.report import Cell, Report, data
from jupyter_inplace.show.report import nothing_ran, public


def test_the_same_data():
    bare = data.Report(verdict="breaks", summary="s.", rank=2, cell=Cell(source="x"))
    report = public(bare)
    assert type(report) is Report is jupyter_inplace.Report
    assert all(getattr(report, f.name) == getattr(bare, f.name) for f in dataclasses.fields(bare))
    assert public(report) is report


def test_what_is_made_of_it_keeps_its_class():
    newer = dataclasses.replace(public(data.Report()), summary="newer")
    assert type(newer) is Report
    assert type(newer.portable()) is Report


def test_it_is_frozen():
    report = public(data.Report())
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.summary = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.note = "new"


def test_where_no_framework_ran():
    report = nothing_ran(Cell(source="1 + 1"))
    assert (report.verdict, report.nothing_ran, report.tool) == ("harmless", True, jupyter_inplace.__version__)
    assert report.to_dict()["nothing_ran"] is True
    assert "nothing_ran" not in public(data.Report()).to_dict()

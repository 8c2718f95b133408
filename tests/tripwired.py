"""Watches that have tripwires from the start, and watches that have none then, whatever was done in the process before."""

from __future__ import annotations

import importlib

import pytest

from jupyter_inplace.record.dispatch import tripwires as _tripwires
from jupyter_inplace.record.dispatch import wiring
from jupyter_inplace.record.dispatch.wiring import Wiring

needed = pytest.mark.skipif(not _tripwires.ready(), reason="this torch has no dispatch key to spare")


@pytest.fixture
def no_tripwires(monkeypatch):
    """The mode is on from the start."""
    monkeypatch.setattr(Wiring, "at_once", False)


@pytest.fixture
def tripwires(monkeypatch):
    """Tripwires stand in for the mode from the start, wherever they are allowed at all."""
    monkeypatch.setattr(Wiring, "backwards", -1)
    monkeypatch.setattr(Wiring, "at_once", True)


@pytest.fixture
def nothing_compiled(monkeypatch):
    """As in a process that has compiled nothing and made no operators: other tests have."""
    monkeypatch.setattr(wiring, "_compiled", lambda: False)
    monkeypatch.setattr(Wiring, "_knows_operators", lambda _: _tripwires.ready())


@pytest.fixture(params=["by the mode", "by tripwires"])
def way(request):
    """A test for each of the two, named by it."""
    if request.param == "by the mode":
        request.getfixturevalue("no_tripwires")
    else:
        if not _tripwires.ready():
            pytest.skip("this torch has no dispatch key to spare")
        for fixture in ("nothing_compiled", "tripwires"):
            request.getfixturevalue(fixture)
    return request.param


@pytest.fixture
def own_record(monkeypatch):
    """As in a process that was never watched before: graphs of other tests may be there still, with what was overwritten in them."""
    monkeypatch.setattr(importlib.import_module("jupyter_inplace.record.active").active, "session", None, raising=False)

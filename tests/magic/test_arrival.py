"""Is a framework named, and when does it come."""

from __future__ import annotations

import importlib
import sys
import threading

import pytest

from jupyter_inplace.frameworks.import_hook import OnArrival
from jupyter_inplace.magic.arrival import mentions_framework


@pytest.mark.parametrize(
    "source",
    ["import torch", "from torch import nn", "x = f(torch.ones(2))", "import torchvision", "import tensorflow as tf"],
)
def test_named(source):
    assert mentions_framework(source)
    assert mentions_framework(f"%%autograd_watch\nx = 1\n{source}\n")


@pytest.mark.parametrize("source", ["", "x = 1", "# torch", "print('torch')", "import storch", "x = 1  # with torch"])
def test_not_named(source):
    assert not mentions_framework(source)


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    """A package that nobody has imported, and a module that imports it."""
    (tmp_path / "newcomer").mkdir()
    (tmp_path / "newcomer" / "__init__.py").write_text("import newcomer.part\nready = True\n")
    (tmp_path / "newcomer" / "part.py").write_text("")
    (tmp_path / "user_of_newcomer.py").write_text("import newcomer\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "newcomer"
    for name in ("newcomer", "newcomer.part", "user_of_newcomer"):
        sys.modules.pop(name, None)


def test_calls_once_when_the_module_is_whole(newcomer):
    seen = []
    arrival = OnArrival(newcomer, lambda: seen.append(sys.modules[newcomer].ready))
    before = list(sys.meta_path)
    arrival.install()
    importlib.import_module("user_of_newcomer")
    importlib.import_module(newcomer)
    assert seen == [True]
    assert sys.meta_path == before


def test_the_module_is_as_it_is_without(newcomer):
    plain = importlib.import_module(newcomer)
    kinds = type(plain.__loader__), type(plain.__spec__.loader)
    del sys.modules[newcomer], sys.modules["newcomer.part"]
    arrival = OnArrival(newcomer, lambda: None)
    arrival.install()
    told = importlib.import_module(newcomer)
    assert told is not plain
    assert (type(told.__loader__), type(told.__spec__.loader)) == kinds


def test_removed_before_it_came(newcomer):
    seen = []
    arrival = OnArrival(newcomer, lambda: seen.append(1))
    arrival.install()
    arrival.remove()
    arrival.remove()
    importlib.import_module(newcomer)
    assert seen == []


def test_another_threads_import_is_not_ours(newcomer):
    seen = []
    arrival = OnArrival(newcomer, lambda: seen.append(1))
    arrival.install()
    thread = threading.Thread(target=importlib.import_module, args=(newcomer,))
    thread.start()
    thread.join()
    arrival.remove()
    assert seen == []


def test_an_import_that_fails_fails_as_without(newcomer, tmp_path):
    (tmp_path / "newcomer" / "__init__.py").write_text("1 / 0")
    seen = []
    arrival = OnArrival(newcomer, lambda: seen.append(1))
    arrival.install()
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(newcomer)
    arrival.remove()
    assert seen == []

"""Expressions as deep as generated code has them: nothing of ours recurses over them."""

from __future__ import annotations

import ast

import pytest

from jupyter_inplace._syntax import TOO_DEEP, is_deep, unparse
from jupyter_inplace.explain.backward.tasks import addend_texts
from jupyter_inplace.explain.names.source import static_tasks
from jupyter_inplace.record.source.expressions import is_path

N = 900  # what the parsers of all supported versions of Python still read


def test_addends_of_a_long_sum():
    terms = [f"f{i}(x)" for i in range(N)]
    assert addend_texts(f"({' + '.join(terms)}).backward()") == terms


def test_what_is_too_deep_has_no_text():
    node = ast.parse("a" + " + a" * N, mode="eval").body
    assert is_deep(node)
    assert unparse(node) == TOO_DEEP
    assert not is_deep(ast.parse("model.encoder[0].weight.t()", mode="eval").body)


def test_an_index_of_a_thousand_terms_is_no_path():
    node = ast.parse(f"x[{' + '.join(['0'] * N)}]", mode="eval").body
    assert not is_path(node)


@pytest.mark.parametrize(
    "loss", [" + ".join(["h.sum()"] * N), " * ".join(["2"] * N) + " * h.sum()", "h" + ".view(4)" * N + ".sum()"]
)
def test_tasks_of_a_long_expression(loss):
    tasks = list(static_tasks(f"h = w.exp()\nloss = {loss}\nloss.backward()\n"))
    assert [task.name for task in tasks] == ["loss"]

"""Sources parsed by several threads at once."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor

import pytest

from jupyter_inplace._syntax import parse
from jupyter_inplace.rewrite.rewind.rebound import rebound_names
from jupyter_inplace.rewrite.sandbox.payload import names_read
from jupyter_inplace.rewrite.syntax.code import enclosed
from jupyter_inplace.rewrite.syntax.mask import mask
from jupyter_inplace.rewrite.syntax.tree import SyntaxTree


def test_as_ast_does():
    assert ast.dump(parse("x = f(y)")) == ast.dump(ast.parse("x = f(y)"))
    assert ast.dump(parse("x.y", mode="eval")) == ast.dump(ast.parse("x.y", mode="eval"))
    with pytest.raises(SyntaxError):
        parse("x = = y")


def test_in_many_threads():
    source = "\n".join(f"def f{i}(x):\n    return [[(x + {i}) for y in x] for z in (x, (x, (x,)))]" for i in range(40))
    expected = ast.dump(ast.parse(source))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: ast.dump(parse(source)), range(60))) == {expected}


def test_once_more_where_another_thread_of_the_program_upset_it(monkeypatch):
    real, calls = ast.parse, []

    def upset(source, mode="exec"):
        calls.append(source)
        if len(calls) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=63, after=58)")
        return real(source, mode=mode)

    monkeypatch.setattr(ast, "parse", upset)
    assert isinstance(parse("x"), ast.Module)
    assert len(calls) == 3


@pytest.mark.parametrize(
    "read",
    [
        lambda: SyntaxTree("x = 1").text,
        lambda: enclosed("a +\\\n b"),
        lambda: enclosed("a +\n b"),
        lambda: mask("%time x.mul_(2)\n").text,
        lambda: rebound_names("x = 1"),
        lambda: names_read({}, "x = y"),
    ],
)
def test_a_rewrite_is_made_while_another_thread_parses(monkeypatch, read):
    expected = read()
    real, calls = ast.parse, []

    def upset(source, *args, **options):
        calls.append(source)
        if len(calls) == 1:
            raise SystemError("AST constructor recursion depth mismatch (before=159, after=23)")
        return real(source, *args, **options)

    monkeypatch.setattr(ast, "parse", upset)
    assert read() == expected
    assert len(calls) > 1

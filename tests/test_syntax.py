"""Sources parsed by several threads at once."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor

import pytest

from jupyter_inplace._syntax import parse


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

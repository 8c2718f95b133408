"""A smaller program that fails in the same way: statements are taken away, blocks opened, names replaced, as long as it still fails."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator

from random_programs.runs import usual_settings
from random_programs.text import ORACLE_ONLY, Program

_ASSIGNED = re.compile(r"(\w+) = (.+)")
_ALWAYS = ("torch.set_default_dtype", "torch.manual_seed")  # without them it would be another program
_WORD = re.compile(r"\b[a-z]+\d+\b")  # the names that a draft gives


@dataclasses.dataclass
class _Statement:
    """A statement with what stands in its block, and the oracle's lines that belong to it: they come and go together.

    :ivar head: its own line, with its decorators above it and the oracle's lines that begin its block below it.
    :ivar after: the oracle's lines that follow it.
    """

    head: list[str]
    body: list[_Statement] = dataclasses.field(default_factory=list)
    after: list[str] = dataclasses.field(default_factory=list)

    def lines(self) -> Iterator[str]:
        yield from self.head
        for statement in self.body:
            for line in statement.lines():
                yield "    " + line
        yield from self.after

    @property
    def is_block(self) -> bool:
        return any(line.endswith(":") and not line.startswith("@") for line in self.head)


def _parse(lines: list[str]) -> list[_Statement]:
    statements: list[_Statement] = []
    i = 0
    while i < len(lines):
        head = [lines[i]]
        while lines[i].startswith("@"):
            i += 1
            head.append(lines[i])
        i += 1
        if head[0].startswith(ORACLE_ONLY) and statements:
            statements[-1].after += head
            continue
        inner = []
        while i < len(lines) and lines[i].startswith("    "):
            inner.append(lines[i][4:])
            i += 1
        while inner and inner[0].startswith(ORACLE_ONLY):
            head.append("    " + inner.pop(0))
        statements.append(_Statement(head, _parse(inner)))
    return statements


def _render(statements: list[_Statement]) -> str:
    return "".join(line + "\n" for statement in statements for line in statement.lines())


def _all(statements: list[_Statement]) -> Iterator[tuple[list[_Statement], int]]:
    """Where every statement stands, the last first."""
    for i in range(len(statements) - 1, -1, -1):
        yield statements, i
        yield from _all(statements[i].body)


def _smaller(text: str) -> Iterator[str]:
    """Texts that are a little smaller than `text`, those that take most away first."""
    count = sum(1 for _ in _all(_parse(text.splitlines())))
    for at in range(count):
        root = _parse(text.splitlines())
        siblings, i = list(_all(root))[at]
        if siblings[i].head[0].startswith(_ALWAYS):
            continue
        statement = siblings.pop(i)
        yield _render(root)  # an empty block does not compile
        if statement.is_block and statement.body:  # what is in the block, without the block
            siblings[i:i] = statement.body
            yield _render(root)
    for at in range(count):  # a name stands for what it was made of
        root = _parse(text.splitlines())
        siblings, i = list(_all(root))[at]
        found = _ASSIGNED.match(siblings[i].head[-1])
        if found is None or siblings[i].is_block or len(siblings) == 1:
            continue
        name = found.group(1)
        del siblings[i]
        rest = _render(root)
        if re.search(rf"\b{name}\b", rest):
            for other in dict.fromkeys(_WORD.findall(found.group(2))):
                yield re.sub(rf"\b{name}\b", other, rest)
    for old, new in (("range(4)", "range(3)"), ("range(3)", "range(2)"), ("range(2)", "range(1)")):
        if old in text:
            yield text.replace(old, new)


def reduce(program: Program, fails: Callable[[Program], bool], seconds: float = 20.0) -> Program:
    """The smallest program that was found within some seconds; `fails` says whether one still fails in the same way."""
    end = time.monotonic() + seconds
    smallest = program
    found = True
    while found:
        found = False
        for text in _smaller(smallest.text):
            if time.monotonic() > end:
                return smallest
            candidate = smallest.with_text(text)
            if len(text) < len(smallest.text) and _compiles(candidate) and fails(candidate):
                smallest, found = candidate, True
                break
    return smallest


def _compiles(program: Program) -> bool:
    try:
        with usual_settings():
            compile(program.oracle_source, "<oracle>", "exec")
            compile(program.cell, "<cell>", "exec")
    except SyntaxError:
        return False
    return True

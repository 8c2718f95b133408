"""Writes the contract of the report for readers that are not Python, from the dataclasses of `jupyter_inplace.report.data`.

    python tools/make_contract.py        (or: make contract)

Three files: the types of the front end, the JSON schema of the documentation, and a report with every field and every
word, which the tests of the front end read. `tests/report/test_contract.py` fails where one of them differs from what
this would write.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Union

from jupyter_inplace.report.data import MIME_TYPE, Report

ROOT = Path(__file__).parents[1]
TYPES = ROOT / "labextension" / "src" / "report" / "contract.ts"
SCHEMA = ROOT / "docs" / "report.schema.json"
SAMPLE = ROOT / "labextension" / "tests" / "contract.sample.json"

#: Fields whose one value tells a report from other JSON.
CONSTANTS = {"format", "version"}
#: How a float is written that JSON cannot hold.
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
#: Where prettier breaks a line of the front end.
WIDTH = 110


@dataclasses.dataclass(frozen=True)
class Words:
    """A field that holds one of some words. `name` is that of the alias in Python."""

    name: str
    words: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """An object of the JSON: a dataclass."""

    name: str
    doc: str
    fields: tuple[Field, ...]


@dataclasses.dataclass(frozen=True)
class Tuple:
    """A list: any number of one kind, or (`fixed`) one of each kind."""

    kinds: tuple[Kind, ...]
    fixed: bool


#: What a field holds: a scalar of Python, some words, the name of a part, a list.
Kind = type | Words | str | Tuple


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a part."""

    name: str
    kind: Kind
    nullable: bool
    #: Left out of the JSON where it is empty.
    optional: bool
    #: The one value that it ever has, or None.
    constant: str | int | None
    doc: str


def read(root: type = Report) -> list[Part]:
    """All parts of the contract, the root first."""
    found: dict[type, Part] = {}
    waiting = [root]
    while waiting:
        cls = waiting.pop(0)
        if cls not in found:
            hints, (doc, docs) = typing.get_type_hints(cls), _docs(cls)
            fields = [_field(cls, f, hints[f.name], docs.get(f.name, ""), waiting) for f in dataclasses.fields(cls)]
            found[cls] = Part(cls.__name__, doc, tuple(fields))
    return list(found.values())


def _field(cls: type, f: dataclasses.Field[Any], hint: Any, doc: str, waiting: list[type]) -> Field:
    nullable = typing.get_origin(hint) in (Union, types.UnionType)
    if nullable:
        (hint,) = (argument for argument in typing.get_args(hint) if argument is not types.NoneType)
    constant = typing.cast("str | int", f.default) if cls.__name__ == "Report" and f.name in CONSTANTS else None
    kind = _kind(cls, hint, waiting)
    return Field(f.name, kind, nullable, bool(f.metadata.get("absent_if_empty")), constant, doc)


def _kind(cls: type, hint: Any, waiting: list[type]) -> Kind:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return Words(_alias(cls, arguments), arguments)
    if typing.get_origin(hint) is tuple:
        fixed = arguments[-1] is not Ellipsis
        return Tuple(tuple(_kind(cls, a, waiting) for a in arguments if a is not Ellipsis), fixed)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        waiting.append(hint)
        return hint.__name__
    if hint in (str, int, float, bool):
        return typing.cast("type", hint)
    raise TypeError(f"{cls.__name__} has a field of type {hint}, for which the contract has no words.")


def _alias(cls: type, words: tuple[str, ...]) -> str:
    """The name that a module gives to a Literal: type hints do not keep it."""
    module = vars(sys.modules[cls.__module__])
    names = [n for n, v in module.items() if typing.get_origin(v) is Literal and typing.get_args(v) == words]
    if len(names) != 1:
        raise TypeError(f"{cls.__name__}: the words {words} should have one name, and have {names or 'none'}.")
    return names[0]


def _docs(cls: type) -> tuple[str, dict[str, str]]:
    """The first sentence of a docstring, and what it says of each field."""
    text = re.sub(r"``", "`", inspect.getdoc(cls) or "")
    head, *params = re.split(r"^:param (\w+): ", text, flags=re.MULTILINE)
    sentence = re.match(r"[^\n]*?(?:\.(?=\s|$)|$)", head.replace("\n", " "))
    said = (" ".join(doc.split()) for doc in params[1::2])
    described = {name: doc[:1].upper() + doc[1:] for name, doc in zip(params[::2], said, strict=True)}
    return sentence[0] if sentence else "", described


def words_of(parts: list[Part]) -> Iterable[Words]:
    """Each list of words once."""
    kinds = (kind for part in parts for field in part.fields for kind in _with_inner(field.kind))
    return {kind.name: kind for kind in kinds if isinstance(kind, Words)}.values()


def _with_inner(kind: Kind) -> Iterator[Kind]:
    yield kind
    if isinstance(kind, Tuple):
        for inner in kind.kinds:
            yield from _with_inner(inner)


# The types of the front end.


def typescript(parts: list[Part]) -> str:
    """`contract.ts`, as prettier would lay it out."""
    lines = [
        "// Made by tools/make_contract.py from jupyter_inplace/report/data.py: change that, then `make contract`.",
        "",
    ]
    constants = {f.name.upper(): f.constant for part in parts for f in part.fields if f.constant is not None}
    for name, value in {**constants, "MIME_TYPE": MIME_TYPE}.items():
        lines.append(f"export const {name} = {json.dumps(value)};")
    for words in words_of(parts):
        name = _plural(words.name)
        items = [json.dumps(word) for word in words.words]
        line = f"export const {name} = [{', '.join(items)}] as const;"
        broken = [f"export const {name} = [", *(f"  {item}," for item in items), "] as const;"]
        lines += ["", *([line] if len(line) <= WIDTH else broken)]
        lines.append(f"export type {words.name} = (typeof {name})[number];")
    lines += ["", "/** A number, or the word for one that JSON cannot hold. */"]
    lines.append(f"export type Float = {' | '.join(['number', *map(json.dumps, NOT_FINITE)])};")
    for part in parts:
        lines += ["", f"/** {part.doc} */", f"export interface {part.name} {{"]
        for field in part.fields:
            lines += [f"  /** {field.doc} */"] if field.doc else []
            kind = f"typeof {field.name.upper()}" if field.constant is not None else _ts(field.kind)
            lines.append(f"  {field.name}{'?' * field.optional}: {kind}{' | null' * field.nullable};")
        lines.append("}")
    return "\n".join(lines) + "\n"


def _ts(kind: Kind) -> str:
    if isinstance(kind, Tuple):
        inner = [_ts(item) for item in kind.kinds]
        return f"[{', '.join(inner)}]" if kind.fixed else f"{inner[0]}[]"
    if isinstance(kind, type):
        return {str: "string", int: "number", float: "Float", bool: "boolean"}[kind]
    return kind.name if isinstance(kind, Words) else kind


def _plural(name: str) -> str:
    """``TASK_STATUSES`` for ``TaskStatus``."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
    return snake + ("ES" if snake.endswith("S") else "S")


# The JSON schema.


def schema(parts: list[Part]) -> dict[str, Any]:
    """What `to_dict` writes. Fields and words that a later tool adds within the version are no part of it."""
    root, *rest = ({"title": p.name, "description": p.doc, **_object(p)} for p in parts)
    number = {"title": "Float", "anyOf": [{"type": "number"}, {"enum": list(NOT_FINITE)}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **root,
        "$defs": {
            **{part["title"]: part for part in rest},
            **{words.name: {"title": words.name, "enum": list(words.words)} for words in words_of(parts)},
            "Float": number,
        },
    }


def _object(part: Part) -> dict[str, Any]:
    properties = {}
    for field in part.fields:
        told = {"const": field.constant} if field.constant is not None else _schema(field.kind)
        if field.nullable:
            told = {"type": [told["type"], "null"]} if [*told] == ["type"] else {"anyOf": [told, {"type": "null"}]}
        properties[field.name] = {**told, **({"description": field.doc} if field.doc else {})}
    return {
        "type": "object",
        "required": [field.name for field in part.fields if not field.optional],
        "properties": properties,
    }


def _schema(kind: Kind) -> dict[str, Any]:
    if isinstance(kind, Tuple):
        inner = [_schema(item) for item in kind.kinds]
        if kind.fixed:
            return {"type": "array", "prefixItems": inner, "items": False, "minItems": len(inner)}
        return {"type": "array", "items": inner[0]}
    if isinstance(kind, type) and kind is not float:
        return {"type": {str: "string", int: "integer", bool: "boolean"}[kind]}
    name = "Float" if isinstance(kind, type) else kind.name if isinstance(kind, Words) else kind
    return {"$ref": f"#/$defs/{name}"}


# The report with everything in it.


def sample(parts: list[Part]) -> dict[str, Any]:
    """A report whose fields are all filled, each with a value of its own, and in which each word occurs."""
    return _Sample({part.name: part for part in parts}).part(parts[0].name, 0)


class _Sample:
    def __init__(self, parts: dict[str, Part]) -> None:
        self._parts = parts
        self._made = 0

    def part(self, name: str, turn: int) -> dict[str, Any]:
        """:param turn: which of its like it is: one has the first word, the next the second."""
        fields = self._parts[name].fields
        return {f.name: self._value(f.kind, turn, f.name) if f.constant is None else f.constant for f in fields}

    def _value(self, kind: Kind, turn: int, name: str) -> Any:
        if isinstance(kind, Tuple):
            turns = enumerate(kind.kinds) if kind.fixed else ((t, kind.kinds[0]) for t in range(self._turns(kind)))
            return [self._value(inner, t, name) for t, inner in turns]
        if isinstance(kind, Words):
            return kind.words[turn % len(kind.words)]
        if isinstance(kind, str):
            return self.part(kind, turn)
        self._made += 1
        return {str: f"{name} {self._made}", int: self._made, float: self._made + 0.5, bool: turn % 2 == 0}[kind]

    def _turns(self, kind: Kind) -> int:
        """How many it takes until each word below it was had; two at least."""
        if isinstance(kind, Words):
            return len(kind.words)
        inner: tuple[Kind, ...] = ()
        if isinstance(kind, str):
            inner = tuple(f.kind for f in self._parts[kind].fields if not isinstance(f.kind, Tuple))
        elif isinstance(kind, Tuple):
            inner = kind.kinds
        return max(2, *map(self._turns, inner)) if inner else 2


def files() -> dict[Path, str]:
    """Each file and what it should hold."""
    parts = read()
    return {
        TYPES: typescript(parts),
        SCHEMA: json.dumps(schema(parts), indent=2) + "\n",
        SAMPLE: json.dumps(sample(parts), indent=2) + "\n",
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")

"""Reports as JSON data, and files that are written completely or not at all."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from jupyter_inplace.report.data import FORMAT, VERSION, Report
from jupyter_inplace.report.upgrade import upgraded

R = TypeVar("R", bound=Report)

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_data(report: Report) -> dict[str, Any]:
    """A report as plain JSON data."""
    data: dict[str, Any] = encode(report)
    return data


def from_data(cls: type[R], data: Any) -> R:
    """Read back what `to_data` returned. Fields that only later versions know are skipped.

    :param cls: the class of the report.
    :raises ValueError: `data` is not a report, or has another format version.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise ValueError(f"not a report of jupyter_inplace: its `format` should say {FORMAT!r}.")
    if data.get("version") != VERSION:
        raise ValueError(f"a report of version {data.get('version')!r}; this tool reads version {VERSION}.")
    report: R = decode(cls, data, "report")
    return upgraded(report)


def to_text(report: Report, path: str | os.PathLike[str] | None = None) -> str:
    """A report as JSON text; also written to `path` if one is given, completely or not at all.

    :raises OSError: it cannot be written.
    """
    text = dumps(to_data(report))
    if path is not None:
        write_whole(path, text + "\n")
    return text


def encode(value: Any) -> Any:
    """Dataclasses, tuples and numbers as JSON data; numbers that JSON cannot hold as strings."""
    if dataclasses.is_dataclass(value):
        return {
            f.name: encode(item)
            for f in dataclasses.fields(value)
            if not (_is_empty(item := getattr(value, f.name)) and f.metadata.get("absent_if_empty"))
        }
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value == ()


def decode(hint: Any, value: Any, where: str) -> Any:
    """Read JSON data as the type `hint`.

    :param where: the path of `value` in the whole data, for the error message.
    :raises ValueError: `value` is of another type, or lacks a field that has no default.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (argument for argument in arguments if argument is not types.NoneType)
        return decode(hint, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is Ellipsis:
            arguments = arguments[:1] * len(value)
        if len(arguments) == len(value):
            return tuple(decode(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True)))
    elif dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _decode_fields(hint, value, where)
    elif _is_a(str if origin is Literal else hint, value):
        # a word that this version does not know is kept, and shown as it is
        return _WORDS[value] if hint is float and isinstance(value, str) else hint(value) if hint is float else value
    raise ValueError(f"a report with {value!r:.60} where `{where}` stands.")


def _decode_fields(cls: Any, value: Mapping[str, Any], where: str) -> Any:
    for f in dataclasses.fields(cls):
        if f.name not in value and f.default is dataclasses.MISSING:
            raise ValueError(f"a report without `{where}.{f.name}`.")
    hints = _hints(cls)
    return cls(**{name: decode(hints[name], value[name], f"{where}.{name}") for name in hints if name in value})


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _is_a(kind: type, value: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) or (isinstance(value, str) and value in _WORDS)
    return type(value) is kind  # True is an int to isinstance, and not to a reader of the report


def dumps(data: Any) -> str:
    """Data as one line of strict JSON in ASCII."""
    return json.dumps(data, allow_nan=False)


def find_files(path: str | os.PathLike[str]) -> list[Path]:
    """The JSON files at a path, sorted: a file, those in a folder, or those that match a pattern.

    :raises FileNotFoundError: nothing is there.
    """
    name = os.fspath(path)
    found = [Path(name)]
    if found[0].is_dir():
        found = sorted(p for p in found[0].glob("*.json") if not p.name.startswith("."))
        if not found:
            raise FileNotFoundError(f"no report in the folder `{name}`.")
    elif not found[0].exists():
        pattern = Path(name)
        anchor = Path(pattern.anchor)
        relative = str(pattern.relative_to(anchor)) if pattern.anchor else name
        # a name that begins with a dot is a draft that is being written
        found = sorted(p for p in anchor.glob(relative) if not p.name.startswith(".")) if relative else []
    if not found:
        raise FileNotFoundError(f"no report at `{name}`.")
    return found


def read_file(path: Path) -> Any:
    """The data of a JSON file.

    :raises ValueError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both one
        raise ValueError(f"`{path}` is truncated or no JSON ({error}).") from None


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a file so that no reader ever sees a part of it."""
    target = Path(os.path.realpath(path))  # the target of a link, not the link
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8", errors="replace")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)

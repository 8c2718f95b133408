"""What differs between two reports, and what of it counts: the part of `compare_reports.py` that runs nothing."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

#: Fields that hold sentences for people. `explanation` is what our tool adds to the message of an error, see `normalise`.
PROSE = frozenset({"summary", "note", "title", "reason", "blind_spots", "explanation"})
#: Fields that hold names of tensors.
_NAMES = frozenset({"tensor", "tensors", "leaf", "leaves"})

_SECONDS = re.compile(r"\b\d+(?:\.\d+)?(?:e[-+]?\d+)? ?(?:s|ms|seconds?|milliseconds?)\b")
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
_UNNAMED = re.compile(r"\bt\d+\b")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_SHOWN = 160  # characters of a value that are printed


class _Nothing:
    """In place of a value that one of the two does not have."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why there is no report of a cell."""

    reason: str


Outcome = dict[str, Any] | Failure


@dataclasses.dataclass(frozen=True)
class Difference:
    """One place where two reports differ, such as `mutations[0].verdict`; a side that lacks it has `NOTHING`."""

    path: str
    old: Any
    new: Any

    @property
    def field(self) -> str:
        """The name of the innermost field, without positions in lists."""
        return re.sub(r"\[\d+\]", "", self.path).rpartition(".")[2]

    @property
    def is_words(self) -> bool:
        return self.field in PROSE

    @property
    def is_new_field(self) -> bool:
        return self.old is NOTHING and not self.path.endswith("]")

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.old, self.new)} -> {_shown(self.new, self.old)}"


def _shown(value: Any, other: Any) -> str:
    """A value as it is printed: a long text from shortly before the place where it parts from the `other` one."""
    if not isinstance(value, str):
        text = repr(value) if value is NOTHING or isinstance(value, Failure) else json.dumps(value, ensure_ascii=False)
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    begin = 0
    if isinstance(other, str) and len(value) > _SHOWN:
        common = sum(1 for _ in itertools.takewhile(bool, map(str.__eq__, value, other)))
        begin = max(0, common - 40)
    part = value[begin : begin + _SHOWN]
    return f"{'...' * (begin > 0)}{json.dumps(part, ensure_ascii=False)}{'...' * (begin + _SHOWN < len(value))}"


def normalise(report: dict[str, Any], checkout: str = "") -> dict[str, Any]:
    """A report without what differs from run to run although nothing else was found.

    The message of the cell's error is parted: `message` keeps torch's or the program's own words, `explanation` gets ours, which stand
    below the first empty line.
    """
    storages: dict[int, int] = {}
    unnamed: dict[str, str] = {}
    typed = set(_UNNAMED.findall((report.get("cell") or {}).get("source", "")))  # those are the program's own names
    order = {seq: place for place, seq in enumerate(sorted({event["seq"] for event in report.get("timeline", ())}))}

    def clean(value: Any, field: str) -> Any:
        if isinstance(value, dict):
            return {name: clean(item, name) for name, item in value.items() if name != "time"}
        if isinstance(value, list):
            return [clean(item, field) for item in value]
        if field == "storage" and value is not None:
            return storages.setdefault(value, len(storages))
        if field == "seq":
            return order[value]
        if isinstance(value, str):
            text = value.replace(checkout, "<checkout>") if checkout else value
            if field in _NAMES:
                return _UNNAMED.sub(lambda found: number(found[0]), text)
            if field in PROSE or field == "message":
                text = _ADDRESS.sub("<address>", _SECONDS.sub("<seconds>", text))
            return text
        return value

    def number(name: str) -> str:
        return name if name in typed else unnamed.setdefault(name, f"t<{len(unnamed)}>")

    def name_in_sentences(value: Any, field: str) -> Any:
        """After the numbers are given, so that no sentence decides on them."""
        if isinstance(value, dict):
            return {name: name_in_sentences(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [name_in_sentences(item, field) for item in value]
        known = isinstance(value, str) and (field in PROSE or field == "message")
        return _UNNAMED.sub(lambda found: number(found[0]), value) if known else value

    cleaned: dict[str, Any] = name_in_sentences(clean(report, ""), "")
    error = cleaned.get("error")
    if error is not None:
        error["message"], _, error["explanation"] = error["message"].partition("\n\n")
    return cleaned


def differences(old: Any, new: Any, path: str = "") -> Iterator[Difference]:
    """Where two normalised reports, or parts of reports, differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in (*old, *(name for name in new if name not in old)):
            yield from differences(old.get(name, NOTHING), new.get(name, NOTHING), f"{path}.{name}".lstrip("."))
    elif isinstance(old, list) and isinstance(new, list) and _is_of_parts(old + new, path):
        for place, a, b in _aligned(old, new):
            yield from differences(a, b, f"{path}[{place}]")
    elif type(old) is not type(new) or old != new:  # True is 1 to Python, and is not to a reader of the report
        yield Difference(path, old, new)


def _is_of_parts(items: list[Any], path: str) -> bool:
    """Whether the elements of a list are compared one by one; a shape, or a list of names, is one value."""
    return path in PROSE or any(isinstance(item, dict) for item in items)


def _aligned(old: list[Any], new: list[Any]) -> Iterator[tuple[int, Any, Any]]:
    """Elements that belong together, each with its place in `old` (in `new` where `old` has none).

    Elements that are equal but for their sentences belong together first; what stands between them is paired in its order.
    """
    matcher = difflib.SequenceMatcher(None, [_facts(item) for item in old], [_facts(item) for item in new], False)
    for _, i1, i2, j1, j2 in matcher.get_opcodes():
        for i, j in itertools.zip_longest(range(i1, i2), range(j1, j2)):
            yield j if i is None else i, NOTHING if i is None else old[i], NOTHING if j is None else new[j]


def _facts(item: Any) -> str:
    """A part of a report without its sentences, as a text to compare."""

    def strip(value: Any) -> Any:
        return {k: strip(v) for k, v in value.items() if k not in PROSE} if isinstance(value, dict) else value

    return json.dumps(strip(item), sort_keys=True)


def compare(old: Outcome, new: Outcome) -> list[Difference]:
    """All differences between what two runs of a cell gave. Two failures do not differ."""
    if both_failed(old, new):
        return []
    if isinstance(old, Failure) or isinstance(new, Failure):
        return [Difference("report", *(side if isinstance(side, Failure) else "a report" for side in (old, new)))]
    return list(differences(old, new))


def both_failed(old: Outcome, new: Outcome) -> bool:
    """Whether there is nothing to compare."""
    return isinstance(old, Failure) and isinstance(new, Failure)


def changed_sentences(difference: Difference) -> Iterator[tuple[str, str]]:
    """The sentences that differ between the texts of a difference, old and new; a side without one has the empty text."""
    old, new = (_SENTENCE_END.split(side) if isinstance(side, str) else [] for side in (difference.old, difference.new))
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, False).get_opcodes():
        if tag == "equal":
            continue
        if i2 - i1 == j2 - j1:
            yield from zip(old[i1:i2], new[j1:j2], strict=True)
        else:
            yield " ".join(old[i1:i2]), " ".join(new[j1:j2])

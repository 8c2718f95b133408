"""The contract is written once, in the dataclasses: what was made of it for others says the same."""

import copy
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Literal

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_inplace.report import Report

ROOT = Path(__file__).parents[2]


def load_tool():
    spec = importlib.util.spec_from_file_location("make_contract", ROOT / "tools" / "make_contract.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its own dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


tool = load_tool()
SCHEMA = json.loads(tool.SCHEMA.read_text("utf-8"))
SAMPLE = json.loads(tool.SAMPLE.read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.mark.parametrize("path", tool.files(), ids=lambda path: path.name)
def test_what_is_committed_is_what_the_dataclasses_say(path):
    assert path.read_text("utf-8") == tool.files()[path], (
        "the dataclasses changed: run `make contract`, commit what it wrote"
    )


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.builds(Report, format=st.just("jupyter-inplace/report"), version=st.just(1)))
def test_each_report_is_what_the_schema_says(report):
    VALIDATOR.validate(json.loads(report.to_json()))


def test_the_sample_makes_the_round_trip():
    VALIDATOR.validate(SAMPLE)
    assert Report.from_dict(SAMPLE).to_dict() == SAMPLE


def values(data):
    if isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from values(value)
    else:
        yield data


def test_the_sample_has_each_field_and_each_word():
    """The front end's tests hold what the panel read against it."""
    for part in tool.read():
        for field in part.fields:
            assert f'"{field.name}": ' in json.dumps(SAMPLE)
    for words in tool.words_of(tool.read()):
        assert set(words.words) <= set(values(SAMPLE)), words.name
    assert None not in values(SAMPLE)


def places(data, way=()):
    """The ways to all objects of the sample."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    if isinstance(data, dict):
        yield way
    for key, value in items:
        yield from places(value, (*way, key))


def spoiled(way, name, value):
    data = copy.deepcopy(SAMPLE)
    part = data
    for key in way:
        part = part[key]
    if value is ...:
        del part[name]
    else:
        part[name] = value
    return data


def test_the_schema_tells_each_difference():
    """Of each part: a field that is missing, one of another type, null where there is a value, a word that is none."""
    absent = {(part.name, field.name) for part in tool.read() for field in part.fields if field.optional}
    nullable = {(part.name, field.name) for part in tool.read() for field in part.fields if field.nullable}
    words = {(p.name, f.name) for p in tool.read() for f in p.fields if isinstance(f.kind, tool.Words)}
    parts = {frozenset(f.name for f in part.fields): part.name for part in tool.read()}
    seen = {}
    for way in places(SAMPLE):
        found = SAMPLE
        for key in way:
            found = found[key]
        seen.setdefault(parts[frozenset(found)], way)
    assert sorted(seen) == sorted(parts.values())
    for part in tool.read():
        for field in part.fields:
            known, way = (part.name, field.name), seen[part.name]
            assert VALIDATOR.is_valid(spoiled(way, field.name, ...)) == (known in absent), known
            assert VALIDATOR.is_valid(spoiled(way, field.name, None)) == (known in nullable), known
            assert not VALIDATOR.is_valid(spoiled(way, field.name, {"no": "such"})), known
            if known in words:
                assert not VALIDATOR.is_valid(spoiled(way, field.name, "no such word")), known


# A contract small enough to write down what becomes of it.

Word = Literal["good", "bad"]


@dataclasses.dataclass
class Inner:
    """One of many. Not told."""

    pair: tuple[int, str]


@dataclasses.dataclass
class Outer:
    """What stands
    on two lines; and more.

    :param word: which ``word``
        it is.
    """

    word: Word
    size: float | None
    inner: tuple[Inner, ...] = dataclasses.field(default=(), metadata={"absent_if_empty": True})


def test_the_types_of_the_front_end():
    made = tool.typescript(tool.read(Outer))
    assert 'export const WORDS = ["good", "bad"] as const;\nexport type Word = (typeof WORDS)[number];\n' in made
    assert made.endswith(
        """
/** What stands on two lines; and more. */
export interface Outer {
  /** Which `word` it is. */
  word: Word;
  size: Float | null;
  inner?: Inner[];
}

/** One of many. */
export interface Inner {
  pair: [number, string];
}
"""
    )


def test_the_schema_of_a_small_contract():
    made = tool.schema(tool.read(Outer))
    assert made["required"] == ["word", "size"]
    assert made["properties"] == {
        "word": {"$ref": "#/$defs/Word", "description": "Which `word` it is."},
        "size": {"anyOf": [{"$ref": "#/$defs/Float"}, {"type": "null"}]},
        "inner": {"type": "array", "items": {"$ref": "#/$defs/Inner"}},
    }
    assert made["$defs"]["Word"] == {"title": "Word", "enum": ["good", "bad"]}
    pair = made["$defs"]["Inner"]["properties"]["pair"]
    assert pair["prefixItems"] == [{"type": "integer"}, {"type": "string"}]


def test_a_type_that_the_contract_has_no_words_for_is_refused():
    @dataclasses.dataclass
    class Odd:
        names: dict[str, int]

    with pytest.raises(TypeError, match="names|dict"):
        tool.read(Odd)

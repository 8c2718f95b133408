"""Reports that version 0.1.0 wrote, merged and re-merged by it: what it said in sentences alone is a field now, all else the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_inplace.merge import merge
from jupyter_inplace.report import Report

OLD = json.loads((Path(__file__).parent / "reports_of_0_1_0.json").read_text("utf-8"))
NEW_FIELDS = {"effects", "own_note", "nothing_ran"}


def without_new_fields(value):
    if isinstance(value, dict):
        return {name: without_new_fields(item) for name, item in value.items() if name not in NEW_FIELDS}
    return [without_new_fields(item) for item in value] if isinstance(value, list) else value


def read(part, name):
    return Report.from_dict(OLD[part][name])


def of_two_ranks(name):
    if name == "steps":
        return [read("reports", "steps.rank0"), read("reports", "steps.rank1")]
    return [replace(read("reports", name), rank=rank, world=2) for rank in (0, 1)]


@pytest.mark.parametrize(
    ("part", "name"), [(part, name) for part in ("reports", "merged", "again") for name in OLD[part]]
)
def test_a_report_is_read_as_it_was_and_once_read_stays(part, name):
    report = read(part, name)
    assert without_new_fields(report.to_dict()) == OLD[part][name]
    assert Report.from_dict(report.to_dict()) == report


@pytest.mark.parametrize(("name", "effects"), [("discarded", [("discards_gradient",), ()]), ("shared", [("overwrites_gradients",)]),
                                               ("later", [("cuts_later_reads",)]), ("steps", [(), ("cuts_later_reads",)])])  # fmt: skip
def test_the_sentence_of_a_note_is_a_field(name, effects):
    for report in (read("reports", "steps.rank0" if name == "steps" else name), read("merged", name)):
        assert [m.effects for m in report.mutations] == effects


def test_that_nothing_ran_is_a_field():
    assert {name for name in OLD["reports"] if read("reports", name).nothing_ran} == {"plain"}
    assert read("merged", "plain").nothing_ran


@pytest.mark.parametrize("name", OLD["merged"])
def test_old_reports_merge_as_they_did(name):
    merged, old = without_new_fields(merge(of_two_ranks(name)).to_dict()), OLD["merged"][name]
    summary, before = merged.pop("summary"), {**old}.pop("summary")
    assert merged == {key: value for key, value in old.items() if key != "summary"}
    if name == "discarded":  # 0.1.0 did not know the note any more once the ranks stood in it
        assert summary.startswith("the gradient of loss_a is lost: net.weight.grad was cleared before anything read it")
    elif name == "shared":  # and put the ranks into the sentence twice
        assert summary == before.replace(" after that, on both ranks;", " after that;")
    else:
        assert summary == before


def test_old_merged_reports_merge_again_as_they_did():
    steps = merge([read("merged", "steps"), read("reports", "steps.rank0")])
    assert without_new_fields(steps.to_dict()) == OLD["again"]["steps"]
    plain = merge([read("merged", "plain"), read("reports", "plain")])
    assert without_new_fields(plain.to_dict()) == OLD["again"]["plain"]
    discarded = merge([read("merged", "discarded"), *of_two_ranks("discarded")])
    assert [m.note for m in discarded.mutations] == [m["note"] for m in OLD["again"]["discarded"]["mutations"]]


@pytest.mark.parametrize("name", OLD["portable"])
def test_what_a_notebook_keeps_says_the_same(name):
    assert read("reports", name).portable().summary == OLD["portable"][name]

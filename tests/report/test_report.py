"""The data model: JSON, files, verdicts. What is shown of it is tested in tests/show."""

import dataclasses
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_inplace.report import (
    HARMFUL,
    VERDICTS,
    Cell,
    Conflict,
    Error,
    Fix,
    Gradient,
    InplaceError,
    Mutation,
    Report,
    Site,
    Task,
    VersionNorm,
    load,
    verdict_of,
    worst,
)
from jupyter_inplace.report import data as model
from jupyter_inplace.report.unknown import left_open

# REPORT.md, word for word: what each object must have at least
CONTRACT = {
    "Report": "format version tool framework framework_version rank verdict summary cell error mutations conflicts tasks "
    "gradients task_cosines timeline fixes blind_spots",
    "Cell": "source id execution_count",
    "Error": "type message site",
    "Mutation": "id op tensor shape dtype device storage versions time count site verdict pending value_changed tasks leaves",
    "Conflict": "mutation node saved_as tensor saved_version found_version bytes_overlapping saved_site module tasks leaves",
    "Task": "name status site",
    "Gradient": "task leaf status norm_as_run norm_reference relative_difference cosine occurrence by_version",
    "VersionNorm": "version norm",
    "TaskCosine": "leaf tasks as_run reference",
    "TimelineEvent": "seq time kind tensor version site task mutation conflict count",
    "Fix": "id mutations kind title source diff extra_bytes reading verification",
    "Verification": "status covered runs verdict losses_equal gradients_equal reason gradients",
    "Site": "file line column end_line end_column text line_text function cell_line",
}


def reports(**parts):
    return st.builds(Report, format=st.just("jupyter-inplace/report"), version=st.just(1), **parts)


@pytest.mark.parametrize("name", CONTRACT)
def test_has_the_fields_of_the_contract_frozen_and_slotted(name):
    cls = getattr(model, name)
    assert set(CONTRACT[name].split()) <= {f.name for f in dataclasses.fields(cls)}
    assert cls.__dataclass_params__.frozen
    assert "__slots__" in vars(cls)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(reports())
def test_round_trip(report):
    text = report.to_json()
    strict = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert strict == report.to_dict()
    assert Report.from_dict(strict).to_dict() == strict  # not ==: NaN is not equal to itself


def test_round_trip_is_exact():
    report = Report(
        rank=3,
        mutations=(Mutation(id=0, op="aten.mul_.Tensor", tensor="h", shape=(2, 3), versions=(0, 1), time=0.1 + 0.2),),
        gradients=(
            Gradient(task="a", leaf="w", norm_as_run=math.inf, norm_reference=5e-324, cosine=-0.0),
            Gradient(task="a", leaf="b", norm_as_run=-math.inf, by_version=(VersionNorm(0, 0.7),)),
        ),
        fixes=(Fix(id=0, kind="clone", title="t", source="s"),),
        cell=Cell(source="x\n\ud800", execution_count=None),
    )
    again = Report.from_dict(json.loads(report.to_json()))
    assert again == report
    assert hash(again) == hash(report)


def test_numbers_that_json_cannot_hold_are_words():
    row = Gradient(task="a", leaf="w", norm_as_run=math.nan, norm_reference=math.inf, cosine=-math.inf)
    data = Report(gradients=(row,)).to_dict()["gradients"][0]
    assert (data["norm_as_run"], data["norm_reference"], data["cosine"]) == ("NaN", "Infinity", "-Infinity")
    assert math.isnan(Report.from_dict(Report(gradients=(row,)).to_dict()).gradients[0].norm_as_run)


def test_by_version_is_absent_where_there_is_none():
    data = Report(gradients=(Gradient(task="a", leaf="w"),)).to_dict()
    assert "by_version" not in data["gradients"][0]


def test_unknown_fields_of_later_tools_are_skipped():
    data = Report(mutations=(Mutation(id=0, op="o", tensor="h", site=Site(file="In[1]", line=2)),)).to_dict()
    changed = json.loads(json.dumps(data))
    changed["new"] = {"a": [1]}
    changed["mutations"][0]["new"] = 1
    changed["mutations"][0]["site"]["new"] = None
    assert Report.from_dict(changed).to_dict() == data


def test_fields_may_be_missing_where_they_have_a_default():
    assert Report.from_dict({"format": "jupyter-inplace/report", "version": 1}) == Report()


@pytest.mark.parametrize("change", [{"mutations": [{"id": 0}]}, {"mutations": [3]}, {"mutations": {}}, {"verdict": None},
                                    {"rank": "0"}, {"rank": True}, {"tasks": [{"name": 1}]}, {"cell": "x"},
                                    {"gradients": [{"task": "a", "leaf": "b", "cosine": "much"}]},
                                    {"mutations": [{"id": 0, "op": "o", "tensor": "t", "versions": [1, 2, 3]}]}])  # fmt: skip
def test_says_which_field_is_wrong(change):
    data = {**Report().to_dict(), **change}
    with pytest.raises(
        ValueError, match=rf"^a report with.*`report\.{next(iter(change))}|^a report without `report\.mut"
    ):
        Report.from_dict(data)


@pytest.mark.parametrize("data", [None, [], 3, "x", {}, {"format": "nbformat"}])
def test_refuses_what_is_no_report(data):
    with pytest.raises(ValueError, match="not a report of jupyter_inplace"):
        Report.from_dict(data)


def test_refuses_another_version():
    with pytest.raises(ValueError, match="version 2; this tool reads version 1"):
        Report.from_dict({"format": "jupyter-inplace/report", "version": 2})


def test_file_round_trip(tmp_path):
    report = Report(summary="größer <b>", rank=0)
    report.to_json(tmp_path / "a.json")
    assert load(tmp_path / "a.json") == report
    assert load(str(tmp_path / "*.json")) == report
    assert load(tmp_path / "**" / "a.json") == report


def test_a_file_name_with_glob_characters_is_a_name_first(tmp_path):
    Report(rank=1).to_json(tmp_path / "run[1].json")
    assert load(tmp_path / "run[1].json").rank == 1


def test_load_says_what_is_wrong_in_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no report at `.*none\.json`"):
        load(tmp_path / "none.json")
    file = tmp_path / "a.json"
    text = Report().to_json()
    for wrong, words in (
        (text[:-20].encode(), "truncated or no JSON"),
        (b"", "truncated or no JSON"),
        (b"\xff\xfe", "truncated or no JSON"),
        (b"[]", "not a report of jupyter_inplace"),
        (text.replace('"version": 1', '"version": 9').encode(), "version 9; this tool reads version 1"),
        (text.replace('"rank": null', '"rank": "x"').encode(), r"`report\.rank`"),
    ):
        file.write_bytes(wrong)
        with pytest.raises(ValueError, match=words) as caught:
            load(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
    Report().to_json(tmp_path / "b.json")
    with pytest.raises(ValueError, match="`report.rank`") as caught:
        load(tmp_path / "*.json")
    assert str(file) in str(caught.value)


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    Report(rank=1).to_json(file)

    def full(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        Report(rank=2).to_json(file)
    monkeypatch.undo()
    assert load(file).rank == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_worst():
    assert worst([]) == "harmless"
    assert worst(["harmless", "mixes", "cuts"]) == "cuts"
    assert worst(reversed(VERDICTS)) == "rejected"
    with pytest.raises(ValueError, match="`bad` is no verdict"):
        worst(["bad"])


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("at", VERDICTS)
def test_raise_for_verdict(verdict, at):
    order = ["harmless", "mixes", "unknown", "cuts", "corrupts", "breaks", "rejected"]
    report = Report(verdict=verdict, summary="what happened.")
    if verdict == "unknown" or order.index(verdict) >= order.index(at):
        with pytest.raises(InplaceError, match="what happened") as caught:
            report.raise_for_verdict(at)
        assert caught.value.report is report
        assert str(caught.value) == str(report)
    else:
        report.raise_for_verdict(at)


def test_verdict_of():
    mixes, cuts = (Mutation(id=0, op="op", tensor="h", verdict=word) for word in ("mixes", "cuts"))
    assert verdict_of(()) == "harmless"
    assert verdict_of((), ("why",)) == verdict_of((mixes,), ("why",)) == "unknown"
    assert verdict_of((mixes, cuts), ("why",)) == "cuts"


def test_left_open():
    report = left_open(left_open(Report(nothing_ran=True), "the watch failed"), "so did that")
    assert (report.verdict, report.unknown_because) == ("unknown", ("the watch failed", "so did that"))
    assert report.blind_spots == report.unknown_because
    assert not report.nothing_ran
    assert report.summary == "it is not known whether a gradient is harmed: the watch failed. There is 1 more reason."
    assert Report.from_dict(report.to_dict()) == report
    breaks = left_open(Report(mutations=(Mutation(id=0, op="op", tensor="h", verdict="breaks"),)), "why")
    assert (breaks.verdict, breaks.unknown_because) == ("breaks", ("why",))


def test_raise_for_verdict_lets_cuts_and_notes_pass_unless_asked():
    for verdict in ("cuts", "mixes", "harmless"):
        Report(verdict=verdict).raise_for_verdict()
    with pytest.raises(InplaceError):
        Report(verdict="corrupts").raise_for_verdict()
    with pytest.raises(ValueError, match="`never` is no verdict"):
        Report().raise_for_verdict("never")


def test_harmful():
    assert HARMFUL == ("rejected", "breaks", "corrupts", "cuts")


def test_the_error_travels_between_processes():
    error = InplaceError(Report(verdict="breaks", summary="s", error=Error(type="RuntimeError", message="m")))
    again = pickle.loads(pickle.dumps(error))
    assert again.report == error.report
    assert str(again) == str(error)


def test_repr_is_one_line():
    report = Report(verdict="breaks", summary="s", tasks=(Task(name="a"),), conflicts=(Conflict(mutation=0, node="N", tensor="t"),))  # fmt: skip
    assert repr(report) == "<Report breaks: s>"


def test_reading_and_showing_a_report_imports_no_torch():
    code = (
        "import sys; from jupyter_inplace.report import Report; r = Report();"
        "str(r); r.to_html(); r._repr_mimebundle_(); Report.from_dict(r.to_dict());"
        "assert not {'torch', 'IPython', 'ipywidgets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])

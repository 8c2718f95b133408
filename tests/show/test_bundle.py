"""What a notebook keeps: complete where it is small, small where the report is large, and nobody's business elsewhere."""

import dataclasses
import json

import pytest
import samples

from jupyter_inplace.report import MIME_TYPE, Conflict, Mutation, Report, Site, Verification

ALL = list(samples.SAMPLES)


def size(report):
    return len(json.dumps(report._repr_mimebundle_()))


@pytest.mark.parametrize("name", ALL)
def test_has_data_html_and_text_of_one_report(name):
    report = samples.SAMPLES[name]()
    bundle = report._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter-inplace.v1+json"} == {*bundle, MIME_TYPE}
    again = Report.from_dict(json.loads(json.dumps(bundle[MIME_TYPE], allow_nan=False)))
    assert again.verdict == report.verdict
    if name not in ("many", "corrupts", "script"):
        assert again == report
        assert bundle["text/plain"] == str(report)
        assert bundle["text/html"] == report.to_html()


def test_carries_no_absolute_path_and_no_source_of_other_files():
    report = samples.corrupts()
    said = "RuntimeError in /home/ada/models/block.py: y.data.mul_(self.gain)  # gain control"
    report = dataclasses.replace(
        report,
        error=samples.Error(type="E", message=said, site=report.mutations[0].site),
        blind_spots=("C:\\Users\\ada\\secret\\a.py", "\\\\server\\share\\b.py", "see ~/notes/c.txt (/var/log/d.log)"),
        fixes=(dataclasses.replace(samples.breaks().fixes[0], verification=Verification(reason=said)),),
        mutations=(dataclasses.replace(report.mutations[0], note=said), *report.mutations[1:]),
        cell=dataclasses.replace(report.cell, id="vscode-notebook-cell:/home/ada/nb.ipynb#W1"),
    )
    kept = json.dumps(report._repr_mimebundle_())
    for secret in ("/home", "ada", "self.gain", "gain control", "sigmoid_()", "Users", "server", "notes", "/var"):
        assert secret not in kept
    for useful in ("block.py:44", "a.py", "b.py", "c.txt", "d.log", "model.proj.weight", "loss = model(x)"):
        assert useful in kept
    assert report.mutations[0].site.text == "y.data.mul_(self.gain)"  # the report itself keeps all


def test_the_summary_of_a_portable_report_names_ops_and_lines():
    summary = samples.corrupts().portable().summary
    assert "mul_ on y (block.py:44, 12 times) overwrote what SigmoidBackward0 (block.py:41) saved" in summary


def test_a_summary_of_other_origin_is_kept_but_for_its_secrets():
    report = dataclasses.replace(
        samples.corrupts(), summary="look at y.data.mul_(self.gain) in /home/ada/models/block.py"
    )
    assert report.portable().summary == "look at ... in block.py"


def test_what_is_no_path_stays():
    text = "a/b ratio, https://pytorch.org/docs/stable, 1 / 2, w//2 and and/or, torch.FloatTensor [4, 5]"
    report = dataclasses.replace(samples.breaks(), blind_spots=(text,))
    assert report.portable().blind_spots == (text,)


@pytest.mark.parametrize("name", ["breaks", "rejected", "cuts", "mixes", "clean", "empty", "many"])
def test_a_report_of_cells_is_portable_as_it_is(name):
    report = samples.SAMPLES[name]()
    assert report.portable() == report


def test_portable_twice_is_portable_once():
    once = samples.script().portable()
    assert once.portable() == once


def test_a_clean_cell_stays_below_20_kb():
    assert size(samples.clean()) < 20_000
    site = samples.clean().mutations[0].site
    writes = tuple(
        Mutation(id=i, op="aten.mul_.Tensor", tensor=f"model.layers.{i}.attention.weight", site=site, shape=(64, 64))
        for i in range(10_000)
    )
    events = tuple(dataclasses.replace(e, seq=i, tensor=f"t{i}") for i, e in enumerate(samples.many().timeline[:5000]))
    report = dataclasses.replace(samples.clean(), mutations=writes, timeline=events)
    assert size(report) < 20_000
    kept = report._repr_mimebundle_()[MIME_TYPE]
    assert "this display is kept small: it leaves out" in kept["blind_spots"][-1]
    assert f"{10_000 - len(kept['mutations']):,} writes of 10,000" in kept["blind_spots"][-1]
    assert kept["summary"] == report.summary


def test_a_big_report_stays_below_1_mb_and_keeps_what_matters():
    report = samples.many()
    bundle = report._repr_mimebundle_()
    assert len(json.dumps(bundle)) < 1_000_000
    kept = Report.from_dict(bundle[MIME_TYPE])
    assert {m.id for m in kept.mutations if m.verdict == "breaks"} == {99}
    assert kept.conflicts == report.conflicts
    assert {(g.task, g.leaf) for g in kept.gradients} >= {
        (g.task, g.leaf) for g in report.gradients if g.status != "ok"
    }
    assert len(kept.gradients) > 3000
    assert any(e.conflict is not None for e in kept.timeline)
    assert any(e.mutation == 99 for e in kept.timeline)
    assert [e.seq for e in kept.timeline] == sorted(e.seq for e in kept.timeline)
    for new, old in zip(kept.gradients[:50], report.gradients[:50], strict=True):
        assert (new.task, new.leaf, new.status) == (old.task, old.leaf, old.status)
        assert new.norm_reference == pytest.approx(old.norm_reference, rel=1e-5)


def test_a_report_of_nothing_but_harm_stays_below_1_mb():
    site = Site(file="In[1]", line=2, text="x" * 200, line_text="x" * 200)
    names = tuple(f"model.layers.{i}.weight" for i in range(300))
    writes = tuple(Mutation(id=i, op="o", tensor="h", site=site, verdict="breaks", leaves=names) for i in range(400))
    conflicts = tuple(
        Conflict(mutation=i % 400, node="N", tensor="h", saved_site=site, leaves=names) for i in range(800)
    )
    events = tuple(samples.TimelineEvent(seq=i, kind="save", tensor=f"h{i}", site=site, conflict=i) for i in range(800))
    report = dataclasses.replace(samples.breaks(), mutations=writes, conflicts=conflicts, timeline=events)
    assert size(report) < 1_000_000
    kept = Report.from_dict(report._repr_mimebundle_()[MIME_TYPE])
    assert kept.mutations
    assert kept.conflicts == conflicts[: len(kept.conflicts)]
    assert all(e.conflict is None or e.conflict < len(kept.conflicts) for e in kept.timeline)


def test_half_a_surrogate_pair_does_not_stop_the_display():
    report = samples.hostile(samples.breaks(), "a\ud800b")
    json.dumps(report._repr_mimebundle_(), ensure_ascii=False).encode()

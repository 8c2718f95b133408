"""The static HTML: well formed, escaped, without script, small, and its numbers the report's."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest
import samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_inplace.report import Conflict, Fix, Gradient, Mutation, Report, TimelineEvent
from jupyter_inplace.report.unknown import left_open
from jupyter_inplace.show.html import page as html

ALL = list(samples.SAMPLES)
VOID = {"br", "wbr", "meta"}
TAGS = {
    *(
        "div",
        "p",
        "span",
        "strong",
        "b",
        "u",
        "code",
        "pre",
        "small",
        "br",
        "wbr",
        "section",
        "header",
        "h4",
        "article",
    ),
    *("table", "thead", "tbody", "tr", "th", "td", "ul", "ol", "li", "details", "summary", "style"),
    *("svg", "g", "rect", "line", "path", "circle", "text", "title"),
}
ATTRIBUTES = {
    *("class", "style", "title", "role", "aria-label", "aria-hidden", "tabindex", "scope"),
    *("width", "height", "viewbox", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "d", "text-anchor"),
}


class Element:
    def __init__(self, tag, attributes):
        self.tag, self.attributes, self.children = tag, attributes, []

    def walk(self):
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    @property
    def text(self):
        return "".join(child.text if isinstance(child, Element) else child for child in self.children)

    def all(self, name):
        return [e for e in self.walk() if e.attributes.get("data-ji") == name]


class Tree(HTMLParser):
    """A strict reading: every element is closed in order."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.root = Element("root", {})
        self.open = [self.root]
        self.feed(source)
        self.close()
        assert self.open == [self.root], "an element is not closed"

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes), "an attribute is there twice"
        element = Element(tag, dict(attributes))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.open[-1].children.append(Element(tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)

    def unknown_decl(self, data):
        pytest.fail(data)

    handle_pi = handle_comment = unknown_decl


def tree(report):
    return Tree(html.render(report)).root


def check_safe(root):
    for element in root.walk():
        if element is root:
            continue
        assert element.tag in TAGS
        assert all(name in ATTRIBUTES or name.startswith("data-ji") for name in element.attributes)
        if element.tag == "style":
            assert not re.search(r"url\(|@import|expression|</", element.text)


@pytest.mark.parametrize("name", ALL)
def test_is_well_formed_and_without_script_or_network(name):
    root = tree(samples.SAMPLES[name]())
    check_safe(root)
    assert len(root.children) == 1
    assert len(root.all("panel")) == len(root.all("verdict")) == 1
    assert not re.search(r"https?://", html.render(samples.SAMPLES[name]()))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "text",
    ["<script>alert('1')</script>\"&", "</style><script>x</script>", "]]>--><img src=x onerror=y>", "' onclick='x"],
)
def test_every_string_of_a_report_is_escaped(name, text):
    report = samples.hostile(samples.SAMPLES[name](), text)
    root = tree(report)
    check_safe(root)
    assert text in root.text
    assert "<script" not in html.render(report)


@pytest.mark.parametrize("word", ["kind", "status", "verdict", "reading"])
def test_words_of_the_contract_are_escaped_too(word):
    evil = '"><script>x</script>'
    report = samples.breaks()
    fix = report.fixes[0]
    changed = {
        "kind": {"fixes": (dataclasses.replace(fix, kind=evil),), "timeline": (TimelineEvent(seq=0, kind=evil),)},
        "status": {
            "fixes": (dataclasses.replace(fix, verification=dataclasses.replace(fix.verification, status=evil)),),
            "gradients": (Gradient(task="a", leaf="b", status=evil),),
        },
        "verdict": {"verdict": evil, "mutations": (dataclasses.replace(report.mutations[0], verdict=evil),)},
        "reading": {"fixes": (dataclasses.replace(fix, reading=evil),)},
    }[word]
    check_safe(tree(dataclasses.replace(report, **changed)))


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("clean", "empty")])
def test_the_attributes_are_the_reports(name):
    report = samples.SAMPLES[name]()
    root = tree(report)
    (verdict,) = root.all("verdict")
    assert verdict.attributes["data-ji-verdict"] == report.verdict
    assert report.summary in verdict.text
    shown = {
        (e.attributes["data-ji-task"], e.attributes["data-ji-leaf"], e.attributes["data-ji-status"])
        for e in root.all("gradient")
    }
    rows = {(g.task, g.leaf, g.status) for g in report.gradients}
    assert shown <= rows
    assert shown == rows or len(rows) > 100
    assert {e.tag for e in root.all("gradient")} <= {"td"}
    fixes = [
        (e.attributes["data-ji-id"], e.attributes["data-ji-kind"], e.attributes["data-ji-status"])
        for e in root.all("fix")
    ]
    assert sorted(fixes) == sorted((str(f.id), f.kind, f.verification.status) for f in report.fixes)
    ids = [int(e.attributes["data-ji-id"]) for e in root.all("mutation")]
    assert len(ids) == len(set(ids))
    assert set(ids) == {m.id for m in report.mutations} or len(report.mutations) > 30
    assert ids[0] in {m.id for m in report.mutations if m.verdict != "harmless"}
    events = {int(e.attributes["data-ji-id"]) for e in root.all("event")}
    assert events <= {e.seq for e in report.timeline}
    assert bool(report.timeline) == bool(root.all("timeline"))


@pytest.mark.parametrize("name", ["breaks", "corrupts", "cuts", "mixes", "rejected"])
def test_the_numbers_are_the_reports(name):
    report = samples.SAMPLES[name]()
    cells = {(e.attributes["data-ji-task"], e.attributes["data-ji-leaf"]): e for e in tree(report).all("gradient")}
    for g in report.gradients:
        cell = cells[g.task, g.leaf]
        numbers = [float(n) for n in re.findall(r"(?<![\w.])-?\d[\d.]*(?:e[+-]\d+)?", cell.text)]
        expected = [g.norm_reference]
        if g.status == "wrong":
            expected = [g.relative_difference, g.cosine, g.norm_as_run, g.norm_reference]
        expected += [v.norm for v in g.by_version] + ([g.occurrence] if g.occurrence is not None else [])
        assert numbers == pytest.approx([n for n in expected if n is not None], rel=6e-3)
        exact = cell.attributes.get("title", "")
        assert all(repr(n) in exact for n in (g.norm_reference, g.relative_difference) if n is not None)
    for row, cosine in zip(
        tree(report).all("task-cosine"), sorted(report.task_cosines, key=lambda c: c.reference), strict=True
    ):
        assert row.attributes["data-ji-leaf"] == cosine.leaf
        assert float(row.children[-1].text) == pytest.approx(cosine.reference, abs=5e-3)


def test_a_wrong_gradient_is_shaded_by_its_size():
    sizes = (0.001, 0.05, 0.5, 5.0)
    rows = tuple(Gradient(task="a", leaf=str(s), status="wrong", relative_difference=s) for s in sizes)
    report = dataclasses.replace(samples.breaks(), gradients=(*rows, Gradient(task="a", leaf="ok", norm_as_run=1.0)))
    cells = tree(report).all("gradient")
    assert [c.attributes.get("class") for c in cells] == ["ji-h1", "ji-h2", "ji-h3", "ji-h4", None]


def test_the_write_is_underlined_beside_its_savers():
    root = tree(samples.breaks())
    (block,) = [e for e in root.all("mutation") if e.attributes["data-ji-verdict"] == "breaks"]
    underlined = {e.attributes["class"]: e.text for e in block.walk() if e.tag == "u"}
    assert underlined["ji-w"] == "z.mul_(0.5)"
    assert [e.text for e in block.walk() if e.attributes.get("class") == "ji-v"] == [
        "torch.tanh(trunk(x))",
        'heads["seg"](z)',
    ]
    assert "version 0 → 1" in block.text
    lines = [e.text for e in block.walk() if e.tag == "pre"]
    assert [line.split(" ", 1)[0] for line in lines] == ["5", "6", "7"]


def test_overlapping_expressions_lose_no_text():
    cell = samples.Cell(source="%%autograd_watch\ny = f(x.mul_(2)) + g(x)\n", execution_count=1)
    write = Mutation(id=0, op="o", tensor="x", site=samples.at(cell, 2, "x.mul_(2)"), verdict="breaks")
    savers = tuple(
        Conflict(mutation=0, node="N", tensor="x", saved_site=samples.at(cell, 2, text))
        for text in ("f(x.mul_(2))", "f(x.mul_(2)) + g(x)", "x.mul_(2)")
    )
    report = Report(verdict="breaks", cell=cell, mutations=(write,), conflicts=savers)
    (line,) = [e for e in tree(report).walk() if e.tag == "pre"]
    assert line.text == "2 y = f(x.mul_(2)) + g(x)"
    assert "x.mul_(2)" in [e.text for e in line.walk() if e.tag == "u"]


def test_the_diff_of_a_fix():
    root = tree(samples.breaks())
    diff = next(e for e in root.all("fix")[0].walk() if e.attributes.get("class") == "ji-diff")
    assert diff.text == "- z.mul_(0.5)  # keep the activations small\n+ z = z.mul(0.5)  # keep the activations small\n"
    assert "same losses, 8 of 8 gradients equal the reference" in root.all("fix")[0].text
    assert samples.breaks().fixes[0].source in root.all("fix")[0].text
    assert samples.breaks().fixes[2].source not in root.text


def test_proved_rewrites_stand_first():
    report = samples.breaks()
    root = tree(dataclasses.replace(report, fixes=tuple(reversed(report.fixes))))
    assert [e.attributes["data-ji-status"] for e in root.all("fix")] == ["passed", "passed", "failed", "failed"]


@pytest.mark.parametrize("name", ["clean", "empty"])
def test_a_clean_cell_is_one_quiet_line_that_unfolds(name):
    report = samples.SAMPLES[name]()
    (panel,) = tree(report).all("panel")
    assert panel.tag == "details"
    assert "open" not in panel.attributes
    summary = panel.children[0]
    assert summary.tag == "summary"
    assert summary.text == f"✓ {report.summary}"
    assert {int(e.attributes["data-ji-id"]) for e in panel.all("mutation")} == {m.id for m in report.mutations}


def test_a_clean_cell_says_that_something_could_not_be_seen():
    report = dataclasses.replace(samples.clean(), blind_spots=("one compiled region", "another thread"))
    (panel,) = tree(report).all("panel")
    assert panel.children[0].text.endswith("2 things could not be seen.")
    assert "one compiled region" in panel.text


def without_style(report):
    """As GitHub shows it: no style sheet, no picture, no attributes of ours."""
    source = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", html.render(report), flags=re.DOTALL)
    return Tree(re.sub(r' (class|style|role|title|tabindex|data-[\w-]+|aria-\w+)="[^"]*"', "", source)).root.text


def test_stays_readable_where_style_and_pictures_are_stripped():
    report = samples.breaks()
    said = without_style(report)
    assert said.startswith(f"✕ breaks: {report.summary}")
    for part in ("line 7: z written, version 1, z.mul_(0.5)", "raises 0.205", "equal 0.279", "✓ proved", "✕ fails",
                 "- z.mul_(0.5)", "TanhBackward0 saved its result, version 0; backward found 1", "-0.57"):  # fmt: skip
        assert part in said
    assert "ji-" not in said


def test_nothing_is_said_by_colour_alone():
    root = tree(samples.breaks())
    for cell in root.all("gradient"):
        assert {"raises": "raises", "ok": "equal"}[cell.attributes["data-ji-status"]] in cell.text
    marks = {}
    for event in root.all("event"):
        kind = event.attributes["class"].split()[-1]
        marks[kind] = tuple((e.tag, e.attributes.get("r")) for e in event.walk() if e.tag in ("circle", "path", "rect"))
    assert len(set(marks.values())) == len(marks)
    assert {"ji-save", "ji-saved-lost", "ji-write", "ji-write-bad", "ji-read", "ji-read-lost"} == set(marks)


def test_scrolling_parts_can_be_reached_and_are_named():
    for name in ALL:
        for element in tree(samples.SAMPLES[name]()).walk():
            if element.attributes.get("class") == "ji-scroll":
                assert element.attributes["tabindex"] == "0"
                assert element.attributes["role"] == "region"
                assert element.attributes["aria-label"]
            if element.tag == "svg":
                assert element.attributes["role"] == "img"
                assert element.attributes["aria-label"]


def test_big_reports_stay_small():
    assert len(html.render(samples.many()).encode()) < 120_000
    long = samples.hostile(samples.clean(), "long " * 2000)
    assert len(html.render(long).encode()) < 20_000
    writes = tuple(Mutation(id=i, op="aten.mul_.Tensor", tensor=f"model.layers.{i}.weight") for i in range(10_000))
    spots = tuple(f"thing {i} " * 30 for i in range(500))
    clean = dataclasses.replace(samples.clean(), mutations=writes, blind_spots=spots)
    assert len(html.render(clean).encode()) < 20_000
    fixes = tuple(Fix(id=i, kind="clone", title="t", source="x\n" * 50_000) for i in range(3))
    assert len(html.render(dataclasses.replace(samples.breaks(), fixes=fixes)).encode()) < 60_000


def test_a_page_is_whole_and_says_its_encoding(tmp_path):
    report = samples.breaks()
    fragment = report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert fragment == html.render(report)
    assert fragment in page
    assert page.startswith('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">')
    assert "<script" not in page


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.builds(Report))
def test_any_report_has_safe_html(report):
    check_safe(tree(report))


def test_what_is_not_known_is_amber_and_never_quiet():
    report = left_open(samples.clean(), "the recorder failed")
    fragment = html.render(report)
    assert "ji-head ji-unknown" in fragment
    assert 'data-ji-verdict="unknown"' in fragment
    assert "? unknown: " in fragment
    assert "ji-quiet" not in fragment.partition("<style")[0]
    assert "✓" not in fragment.partition("<style")[0]
    assert fragment.count("the recorder failed") == 2
    broken = samples.breaks()
    writes = tuple(
        dataclasses.replace(m, verdict="unknown" if m.verdict == "breaks" else m.verdict) for m in broken.mutations
    )
    rows = tuple(dataclasses.replace(g, status="unknown") for g in broken.gradients)
    fragment = html.render(dataclasses.replace(broken, verdict="unknown", mutations=writes, gradients=rows))
    assert "write of which nobody can tell" in fragment
    assert 'ji-chip ji-not-known">not known' in fragment
    assert "not known whether it harms seg and depth" in fragment

"""The timeline's layout."""

import itertools

import pytest
import samples

from jupyter_inplace.report import Report, TimelineEvent
from jupyter_inplace.show.picture import picture

ALL = [name for name in samples.SAMPLES if samples.SAMPLES[name]().timeline]


def test_nothing_happened():
    assert picture(Report()) is None


@pytest.mark.parametrize("name", ALL)
def test_everything_stands_inside_and_nothing_upon_another(name):
    drawn = picture(samples.SAMPLES[name]())
    assert drawn.columns[0].x == 0
    for left, right in itertools.pairwise(drawn.columns):
        assert right.x == pytest.approx(left.x + left.width)
    for upper, lower in itertools.pairwise(drawn.lanes):
        assert lower.y - upper.y >= 30
    for lane in drawn.lanes:
        places = [mark.x for mark in lane.marks]
        assert places == sorted(places)
        assert all(b - a >= 20 for a, b in itertools.pairwise(places))
        assert all(0 < x < drawn.width for x in places)
        assert 0 < lane.y < drawn.height


@pytest.mark.parametrize("name", ALL)
def test_counts_every_event_once(name):
    report = samples.SAMPLES[name]()
    drawn = picture(report, max_lanes=10_000)
    counted = sum(mark.count for lane in drawn.lanes for mark in lane.marks)
    assert counted == sum(e.count for e in report.timeline if e.tensor is not None)
    assert drawn.events == sum(e.count for e in report.timeline)


def test_program_order_is_left_to_right():
    drawn = picture(samples.breaks())
    assert [c.label for c in drawn.columns] == [
        "line 4",
        "line 5",
        "line 6",
        "line 7",
        "line 8",
        "backward of seg",
        "backward of depth",
    ]
    (z,) = [lane for lane in drawn.lanes if lane.tensor == "z"]
    assert [m.shape for m in z.marks] == [
        "saved-lost",
        "saved-lost",
        "write-bad",
        "save",
        "read-lost",
        "read",
        "read-lost",
    ]
    seqs = [m.events[0].seq for m in z.marks]
    assert seqs == sorted(seqs)
    assert drawn.lanes[0] is z  # what is hit stands on top


def test_links_join_each_destroyed_save_to_its_write():
    drawn = picture(samples.breaks())
    (z,) = [lane for lane in drawn.lanes if lane.tensor == "z"]
    write = next((m.x, z.y) for m in z.marks if m.shape == "write-bad")
    saves = sorted((m.x, z.y) for m in z.marks if m.shape == "saved-lost")
    assert [(link.start, link.end) for link in drawn.links] == [(save, write) for save in saves]


def test_the_order_of_the_list_does_not_matter_but_seq():
    report = samples.breaks()
    mixed = Report(cell=report.cell, mutations=report.mutations, timeline=tuple(reversed(report.timeline)))
    assert [c.label for c in picture(mixed).columns] == [c.label for c in picture(report).columns]


def test_thousands_fold_around_what_matters():
    drawn = picture(samples.many())
    assert len(drawn.columns) <= 15
    assert len(drawn.lanes) == 8
    assert drawn.hidden_lanes == 192
    shapes = {mark.shape for lane in drawn.lanes for mark in lane.marks}
    assert {"write-bad", "saved-lost", "fold"} <= shapes
    assert drawn.links


def test_a_loop_stays_one_column_a_line():
    site = samples.breaks().mutations[0].site
    events = tuple(TimelineEvent(seq=i, kind="write", tensor="h", site=site) for i in range(50))
    drawn = picture(Report(timeline=events))
    assert len(drawn.columns) == 1
    assert [mark.count for mark in drawn.lanes[0].marks] == [50]


def test_events_without_tensor_or_site_or_task():
    events = (
        TimelineEvent(seq=0, kind="write", tensor=None),
        TimelineEvent(seq=1, kind="backward"),
        TimelineEvent(seq=2, kind="read", tensor="h"),
    )
    drawn = picture(Report(timeline=events))
    assert [c.label for c in drawn.columns] == ["elsewhere", "backward"]

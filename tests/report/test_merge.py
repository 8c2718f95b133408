"""Reports of ranks, steps and runs as one."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_inplace.report import (
    HARMFUL,
    VERDICTS,
    Conflict,
    Error,
    Fix,
    Gradient,
    Mutation,
    RankCount,
    Report,
    Site,
    Task,
    TaskCosine,
    TimelineEvent,
    data,
    load,
    worst,
)
from jupyter_inplace.report.merge import Merger, merge


def site(line, **parts):
    return Site(file="train.py", line=line, column=4, text=f"h.mul_({line})", **parts)


def write(id, line, verdict="harmless", **parts):
    return Mutation(
        **{"id": id, "op": "aten.mul_.Tensor", "tensor": "h", "site": site(line), "verdict": verdict, **parts}
    )


def of_rank(rank, *mutations, world=2, **parts):
    verdict = worst(m.verdict for m in mutations)
    return Report(rank=rank, world=world, verdict=verdict, summary="s.", mutations=mutations, **parts)


def test_the_same_site_on_all_ranks_is_one_row_with_a_count_for_each():
    merged = merge([of_rank(0, write(0, 7, "breaks", count=3)), of_rank(1, write(0, 7, "breaks", count=4))])
    (row,) = merged.mutations
    assert (row.count, row.verdict) == (7, "breaks")
    assert row.ranks == (RankCount(0, 3), RankCount(1, 4))
    assert row.note == "3 on rank 0, 4 on rank 1"
    assert (merged.rank, merged.ranks, merged.world) == (None, (0, 1), 2)
    assert merged.summary.endswith("On both ranks.")


def test_a_site_on_some_ranks_only_is_marked():
    reports = [of_rank(r, write(0, 3), write(1, 9, "cuts" if r == 2 else "harmless"), world=4) for r in range(3)]
    reports.append(of_rank(3, write(0, 3), write(1, 5, "corrupts", note="by hand"), world=4))
    merged = merge(reports)
    rows = {m.site.line: m for m in merged.mutations}
    assert rows[3].note == "on all 4 ranks"
    assert rows[9].note == "on ranks 0 to 2 only"
    assert (rows[9].verdict, rows[9].count) == ("cuts", 3)
    assert rows[5].note == "by hand, on rank 3 only"
    assert merged.verdict == "corrupts"
    assert "h.mul_(5)" in str(merged)
    assert "on rank 3 only" in str(merged)


def test_rows_that_differ_by_their_storage_alone_are_one():
    """Which iterations of a loop get the same memory again is another matter in each process."""
    once = of_rank(0, write(0, 7, "breaks", storage=1, count=2))
    thrice = of_rank(1, write(0, 7, "breaks", storage=1), write(1, 7, "cuts", storage=2), write(2, 7, tensor="g"))
    merged = merge([once, thrice])
    assert [(m.tensor, m.verdict, m.count, m.note) for m in merged.mutations] == [
        ("h", "breaks", 4, "on both ranks"),
        ("g", "harmless", 1, "on rank 1 only"),
    ]


def test_numbers_are_the_worst_and_every_reference_holds():
    def report(rank, difference, status):
        return of_rank(
            rank,
            *([write(0, 1)] * rank),
            write(5, 7, "corrupts", tasks=("a",), leaves=(f"w{rank}",)),
            conflicts=(
                Conflict(
                    mutation=5,
                    node="MulBackward0",
                    tensor="h",
                    saved_site=site(2),
                    leaves=(f"w{rank}",),
                    pending=rank == 0,
                ),
                Conflict(mutation=5, node="ExpBackward0", tensor="h"),
            ),
            tasks=(Task(name="a", status=status), Task(name="b")),
            gradients=(Gradient(task="a", leaf="w", status=status, relative_difference=difference),),
            task_cosines=(TaskCosine(leaf="w", tasks=("a", "b"), as_run=0.5 - rank, reference=0.9),),
            timeline=(TimelineEvent(seq=1, kind="write", mutation=5, conflict=1),),
            fixes=(Fix(id=0, kind="clone", title="t", source="x", mutations=(5,)),),
        )

    merged = merge([report(0, 0.1, "wrong"), report(1, 0.7, "wrong")])
    rows = {m.id: m for m in merged.mutations}
    assert rows[0].site.line == 7
    assert rows[0].leaves == ("w0", "w1")
    assert {c.mutation for c in merged.conflicts} == {0}
    assert [(c.node, c.leaves, c.pending) for c in merged.conflicts] == [
        ("MulBackward0", ("w0", "w1"), False),
        ("ExpBackward0", (), False),
    ]
    assert [(t.name, t.status) for t in merged.tasks] == [("a", "wrong"), ("b", "ok")]
    assert merged.gradients[0].relative_difference == 0.7
    assert merged.task_cosines[0].as_run == -0.5
    event = merged.timeline[0]
    assert merged.conflicts[event.conflict].node == "ExpBackward0"
    assert rows[event.mutation].site.line == 7
    assert merged.fixes[0].mutations == (0,)


def test_the_error_told_is_the_one_behind_the_others():
    lost = Error(type="RuntimeError", message="Connection closed by peer\nat x")
    own = Error(type="RuntimeError", message="modified by an inplace operation")
    merged = merge([of_rank(0, error=lost), of_rank(1, write(0, 7, "breaks"), error=own)])
    assert merged.error.message == "modified by an inplace operation (rank 1)"
    assert "another error, rank 0: RuntimeError: Connection closed by peer" in merged.blind_spots


def test_blind_spots_of_some_ranks_say_which():
    merged = merge([of_rank(0, blind_spots=("x", "y")), of_rank(1, blind_spots=("y",))])
    assert merged.blind_spots == ("rank 0: x", "y")


def test_ranks_that_left_no_report_are_named():
    merged = merge([of_rank(0, world=4), of_rank(2, world=4)])
    assert "no report of ranks 1 and 3 of 4" in merged.blind_spots


def test_what_does_not_belong_together():
    with pytest.raises(ValueError, match="jobs with 2 and 4 ranks"):
        merge([of_rank(0), of_rank(0, world=4)])
    with pytest.raises(ValueError, match="nothing to merge"):
        merge([])
    merged = merge([of_rank(0), of_rank(1), Report(summary="s.")])
    assert any("without a rank" in spot for spot in merged.blind_spots)


def test_one_report_is_itself():
    report = of_rank(0, write(4, 7))
    assert merge([report]) is report


def test_steps_in_flat_memory():
    merger = Merger()
    for step in range(0, 3000, 3):
        verdict = "corrupts" if step >= 600 else "harmless"
        row = Gradient(task="a", leaf="w", status="wrong" if step >= 600 else "ok", relative_difference=step / 3000)
        mutations = (write(0, 7, verdict, tensor=f"losses[{step}]"), write(1, 8, count=2))
        merger.add(
            Report(
                verdict=verdict, summary="s.", mutations=mutations, gradients=(row,), tasks=(Task(name=f"t{step}"),)
            ),
            step,
        )
    merged = merger.report(3000)
    first, second = merged.mutations
    assert (first.count, first.steps, second.count, second.steps) == (1000, 1000, 2000, 1000)
    assert first.note == "in 1,000 of 1,000 watched steps"
    assert merged.watched_steps == (1000, 3000)
    assert merged.gradients[0].occurrence == 2997
    assert "1,000 of 3,000 steps were watched. The first that harms is step 600." in merged.summary
    assert len(merged.to_json()) < 300_000


def test_rows_are_capped_and_that_is_said():
    merger = Merger()
    for step in range(5000):
        merger.add(Report(summary="s.", mutations=(write(0, step),), tasks=(Task(name=f"t{step}"),)), step)
    merged = merger.report(5000)
    assert len(merged.mutations) == len(merged.tasks) == 4000
    assert any("more than 4,000 different rows" in spot for spot in merged.blind_spots)


def test_load_merges_a_pattern_and_a_folder(tmp_path):
    for rank in (0, 1):
        of_rank(rank, write(0, 7, "breaks")).to_json(tmp_path / f"train.rank{rank}-of-2.json")
    (tmp_path / ".train.rank0-of-2.json.99.tmp").write_text("half a repo")
    for path in (tmp_path, tmp_path / "*.json", tmp_path / "train.rank?-of-2.json"):
        merged = load(path)
        assert merged.ranks == (0, 1)
        assert Report.from_dict(json.loads(merged.to_json())) == merged
    of_rank(0, world=3).to_json(tmp_path / "z.json")
    with pytest.raises(ValueError, match=r"matches 3 reports of jobs with 2 and 3 ranks"):
        load(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="no report in the folder"):
        load(tmp_path / "none")


mutations = st.builds(
    Mutation,
    id=st.integers(0, 50),
    op=st.sampled_from(["aten.mul_.Tensor", "SGD.step"]),
    tensor=st.sampled_from(["h", "w"]),
    count=st.integers(1, 9),
    site=st.sampled_from([None, site(1), site(2), site(3, cell_line=1)]),
    verdict=st.sampled_from(VERDICTS),
    pending=st.booleans(),
    value_changed=st.none() | st.booleans(),
    tasks=st.lists(st.sampled_from("ab"), unique=True).map(tuple),
    time=st.none() | st.floats(0, 9),
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(mutations, max_size=5, unique_by=lambda m: m.id), min_size=2, max_size=5))
def test_nothing_is_lost_and_nothing_counted_twice(rows):
    reports = [of_rank(rank, *group, world=len(rows)) for rank, group in enumerate(rows)]
    merged = merge(reports)
    everything = [m for group in rows for m in group]
    assert sum(m.count for m in merged.mutations) == sum(m.count for m in everything)
    assert merged.verdict == worst(m.verdict for m in everything)
    assert [m.id for m in merged.mutations] == list(range(len(merged.mutations)))
    for m in merged.mutations:
        assert sum(c.count for c in m.ranks) == m.count
    for rank, group in enumerate(rows):
        assert sum(c.count for m in merged.mutations for c in m.ranks if c.rank == rank) == sum(m.count for m in group)
    # places that harm are those that harm somewhere, and no other
    places = {(m.op, m.site and m.site.line) for m in everything if m.verdict in HARMFUL}
    assert {(m.op, m.site and m.site.line) for m in merged.mutations if m.verdict in HARMFUL} == places
    assert Report.from_dict(json.loads(merged.to_json())) == merged
    # in parts or at once
    if len(reports) > 2:
        parts = merge([merge(reports[:2]), *reports[2:]])
        assert sum(m.count for m in parts.mutations) == sum(m.count for m in merged.mutations)
        assert parts.verdict == merged.verdict
        assert parts.ranks == merged.ranks
        assert {m.note for m in parts.mutations} == {m.note for m in merged.mutations}
        assert {r for m in parts.mutations for r in m.ranks} == {r for m in merged.mutations for r in m.ranks}


def test_the_fields_of_merged_reports_are_absent_from_others():
    data = Report(mutations=(write(0, 1),)).to_dict()
    assert not {"ranks", "watched_steps", "world"} & set(data)
    assert not {"ranks", "steps"} & set(data["mutations"][0])
    assert {f.name for f in dataclasses.fields(Report)} >= {"ranks", "watched_steps", "world"}


def test_what_merging_adds_to_a_note_stands_beside_the_writes_own():
    merged = merge([of_rank(0, write(0, 3, note="by hand"), write(1, 4)), of_rank(1)])
    assert [(m.note, m.own_note) for m in merged.mutations] == [
        ("by hand, on rank 0 only", "by hand"),
        ("on rank 0 only", None),
    ]
    again = merge([merged, of_rank(1, write(0, 3, note="by hand"), write(1, 4))])
    assert [(m.note, m.own_note) for m in again.mutations] == [
        ("by hand, on both ranks", "by hand"),
        ("on both ranks", None),
    ]


def test_the_effects_of_a_place_are_those_of_all_its_writes():
    first, second = (
        write(0, 3, "corrupts", effects=("overwrites_gradients",)),
        write(0, 3, "breaks", effects=("cuts_later_reads",)),
    )
    (row,) = merge([of_rank(0, first), of_rank(1, second)]).mutations
    assert row.effects == ("overwrites_gradients", "cuts_later_reads")


def test_of_public_reports_comes_a_public_one_and_of_bare_data_bare_data():
    assert type(merge([of_rank(0), of_rank(1)])) is Report
    assert type(merge([data.Report(rank=0), data.Report(rank=1)])) is data.Report


@pytest.mark.parametrize(
    ("ran", "said"), [((False, False), "nothing to watch: no torch ran here."), ((False, True), "no in-place write.")]
)
def test_whether_anything_ran_is_no_matter_of_words(ran, said):
    merged = merge([of_rank(rank, nothing_ran=not here) for rank, here in enumerate(ran)])
    assert merged.summary == f"{said} Ranks 0 and 1."
    assert merged.nothing_ran is not any(ran)


def test_what_one_rank_left_open_stays_open():
    why, both = "rank 1's copies did not fit", "the recorder failed"
    clean = Report(rank=0, world=2, blind_spots=(both,), unknown_because=(both,), verdict="unknown")
    torn = Report(rank=1, world=2, blind_spots=(why, both), unknown_because=(why, both), verdict="unknown")
    merged = merge([clean, torn])
    assert merged.verdict == "unknown"
    assert set(merged.unknown_because) == {f"rank 1: {why}", both}
    assert set(merged.unknown_because) <= set(merged.blind_spots)
    assert merged.summary.startswith(f"it is not known whether a gradient is harmed: {both}. There is 1 more reason.")
    alone = Report(rank=1, world=2, verdict="unknown")
    assert merge([Report(rank=0, world=2), alone]).verdict == "unknown"
    worse = Report(rank=0, world=2, verdict="cuts", mutations=(Mutation(id=0, op="op", tensor="h", verdict="cuts"),))
    assert merge([worse, torn]).verdict == "cuts"
    assert merge([worse, torn]).unknown_because == (f"rank 1: {why}", f"rank 1: {both}")

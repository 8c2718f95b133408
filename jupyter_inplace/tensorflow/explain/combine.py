"""Merges the reports of two frameworks on one cell."""

from __future__ import annotations

from dataclasses import replace

from jupyter_inplace.report.data import Report, TimelineEvent, verdict_of
from jupyter_inplace.report.summary import build_summary


def combined(torch: Report, own: Report, used: bool) -> Report:
    """One report of both, in the order of time.

    :param torch: the report of the watch itself, with the cell and its error.
    :param used: whether TensorFlow did anything.
    """
    if not used and not own.unknown_because:
        return torch
    torch_used = not torch.nothing_ran
    merged = sorted([*torch.mutations, *own.mutations], key=lambda m: (m.time is None, m.time or 0.0))
    places = {id(m): i for i, m in enumerate(merged)}
    mutations = tuple(replace(m, id=i, framework=m.framework or "torch") for i, m in enumerate(merged))
    ours = [places[id(m)] for m in own.mutations]
    theirs = {m.id: places[id(m)] for m in torch.mutations}
    conflicts = (
        *(replace(c, mutation=theirs[c.mutation]) for c in torch.conflicts),
        *(replace(c, mutation=ours[c.mutation]) for c in own.conflicts),
    )
    known = {task.name for task in own.tasks}
    tasks = (*(task for task in torch.tasks if task.name not in known or task.status != "not_run"), *own.tasks)
    gradients = (*torch.gradients, *own.gradients)
    left_open = tuple(dict.fromkeys((*torch.unknown_because, *own.unknown_because)))
    summary = build_summary(
        mutations, conflicts, tasks, gradients, cell=torch.cell, error=torch.error, unknown_because=left_open
    )
    frameworks = ["torch"] * torch_used + ["tensorflow"]
    versions = [str(torch.framework_version)] * torch_used + [str(own.framework_version)]
    missing = [note for note in own.blind_spots if note not in torch.blind_spots]
    return replace(
        torch,
        framework=" and ".join(frameworks),
        framework_version=" and ".join(versions),
        verdict=verdict_of(mutations, left_open),
        summary=summary,
        mutations=mutations,
        conflicts=conflicts,
        tasks=tasks,
        gradients=gradients,
        task_cosines=(*torch.task_cosines, *own.task_cosines),
        timeline=_timeline(torch, own, theirs, ours),
        blind_spots=(*torch.blind_spots, *missing),
        nothing_ran=False,
        unknown_because=left_open,
    )


def _timeline(torch: Report, own: Report, theirs: dict[int, int], ours: list[int]) -> tuple[TimelineEvent, ...]:
    first = [replace(e, mutation=None if e.mutation is None else theirs.get(e.mutation)) for e in torch.timeline]
    second = [replace(e, mutation=None if e.mutation is None else ours[e.mutation]) for e in own.timeline]
    if not first or not second:
        return tuple(first or second)
    events = sorted(_timed(first) + _timed(second), key=lambda pair: pair[0])
    return tuple(replace(e, seq=i) for i, (_, e) in enumerate(events))


def _timed(events: list[TimelineEvent]) -> list[tuple[float, TimelineEvent]]:
    """Each event with its time; one without a time stays after the one before it."""
    found, last = [], 0.0
    for event in events:
        last = max(last, event.time) if event.time is not None else last
        found.append((last, event))
    return found

"""The timeline of saves, writes, backward passes and reads in program order."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

from jupyter_inplace.explain.backward.facts import BackwardFacts
from jupyter_inplace.explain.report.rows import Rows
from jupyter_inplace.explain.report.span import WatchSpan
from jupyter_inplace.report.data import TimelineEvent

_MAX_EVENTS = 10_000


def build_timeline(facts: Sequence[BackwardFacts], rows: Rows, span: WatchSpan) -> tuple[TimelineEvent, ...]:
    """One event per site and tensor for saves and writes, one per task for each backward, one per overwritten saved tensor read."""
    events: list[tuple[int, dict[str, Any]]] = []
    clock: list[tuple[int, float]] = [(span.start, span.started)]
    for write, number in rows.ids.items():
        row = rows.row(write)
        clock.append((write.first, write.time))
        events.append(
            (
                write.first,
                {
                    "kind": "write",
                    "tensor": row.name,
                    "version": write.version_after,
                    "site": row.site,
                    "mutation": number,
                    "count": write.count,
                },
            )
        )
    saves: dict[Any, dict[str, Any]] = {}
    numbers = rows.conflict_numbers()
    for fact in facts:
        clock.append((fact.order, fact.time))
        hit = {c.saved_order for c in fact.conflicts}
        for save in fact.saves:
            key = (save.tensor, save.site, save.version, save.order if save.order in hit else None)
            if key in saves:
                saves[key]["count"] += 1
            else:
                saves[key] = {
                    "order": save.order,
                    "kind": "save",
                    "tensor": save.tensor,
                    "version": save.version,
                    "site": rows.site(save.site),
                    "count": 1,
                    "conflict": numbers.get(save.order),
                }
        if not fact.pending:
            for task in fact.tasks:
                backward = {"kind": "backward", "task": task, "site": rows.site(fact.site), "count": fact.count}
                events.append((fact.order, backward))
            for conflict in fact.conflicts:
                events.append(
                    (
                        fact.order,
                        {
                            "kind": "read",
                            "tensor": conflict.tensor,
                            "version": conflict.found_version,
                            "site": rows.site(fact.site),
                            "task": conflict.tasks[0] if conflict.tasks else None,
                            "conflict": numbers.get(conflict.saved_order),
                        },
                    )
                )
    events.extend((save.pop("order"), save) for save in saves.values())
    events.sort(key=lambda event: event[0])
    clock.sort()
    return tuple(
        TimelineEvent(seq=i, time=_time(clock, order, span.started), **event)
        for i, (order, event) in enumerate(_folded(events)[:_MAX_EVENTS])
    )


def _folded(events: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """Backward passes and reads of a loop, one per site, task and conflict."""
    out: list[tuple[int, dict[str, Any]]] = []
    known: dict[Any, dict[str, Any]] = {}
    for order, event in events:
        if event["kind"] in ("backward", "read"):
            key = (event["kind"], event.get("tensor"), event["site"], event.get("task"), event.get("conflict"))
            if key in known:
                known[key]["count"] = known[key].get("count", 1) + event.get("count", 1)
                continue
            known[key] = event
        out.append((order, event))
    return out


def _time(clock: list[tuple[int, float]], order: int, started: float) -> float:
    """Seconds since the watch began; if only the order is known, those of the last event before."""
    at = bisect.bisect_right(clock, (order, float("inf"))) - 1
    return max(0.0, clock[max(at, 0)][1] - started)

"""The display bundle: data, HTML and text together, small enough to be saved in a notebook."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from jupyter_inplace.report import words
from jupyter_inplace.report.data import HARMFUL, MIME_TYPE, Report
from jupyter_inplace.report.files import dumps, to_data
from jupyter_inplace.report.portable import portable
from jupyter_inplace.show import text
from jupyter_inplace.show.html import page as html

# Characters of the data. With HTML and text the output of a harmless cell stays below 20 KB, and any output below 1 MB.
QUIET_BUDGET = 7_000
BUDGET = 850_000

_Row = dict[str, Any]


def mimebundle(report: Report) -> dict[str, Any]:
    """What a notebook displays and saves: no absolute path, and no source from outside of the cell."""
    carried = portable(report)
    bundle = {"text/plain": text.render(carried), "text/html": str(html.render(carried)), MIME_TYPE: data(carried)}
    try:
        json.dumps(bundle, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair in a string of the user's: it cannot be sent to a front end
        bundle = json.loads(json.dumps(bundle, ensure_ascii=False).encode(errors="replace"))
    return bundle


def data(report: Report) -> dict[str, Any]:
    """The JSON data of the report. If it is too large, the least important rows are left out, and a note says so."""
    whole = to_data(report)
    budget = QUIET_BUDGET if report.verdict == "harmless" else BUDGET
    if len(dumps(whole)) <= budget:
        return whole
    small = _shrunk(whole, budget)
    lost = [
        f"{words.counted(before - after, noun)} of {before:,}"
        for noun, before, after in (
            ("timeline event", _count(whole["timeline"]), _count(small["timeline"])),
            ("write", _count(whole["mutations"]), _count(small["mutations"])),
            ("gradient", len(whole["gradients"]), len(small["gradients"])),
        )
        if before > after
    ]
    if lost:
        note = f"this display is kept small: it leaves out {words.listed(lost)}; the report itself has all"
        small["blind_spots"] = [*small["blind_spots"], note]
    return small


def _count(rows: list[_Row]) -> int:
    return sum(row["count"] for row in rows)


def _shrunk(whole: _Row, budget: int) -> _Row:
    """Round the numbers, fold the timeline, then keep rows in the order of their importance until the budget is used up."""
    harmful = {row["id"] for row in whole["mutations"] if row["verdict"] in HARMFUL}
    noted = harmful | {row["id"] for row in whole["mutations"] if row["verdict"] != "harmless"}
    rows = {
        "mutations": whole["mutations"],
        "conflicts": whole["conflicts"],
        "gradients": [_rounded(row) for row in whole["gradients"]],
        "timeline": _folded(whole["timeline"]),
    }
    small = {**whole, **{name: [] for name in rows}}
    room = budget - len(dumps(small))
    kept: set[int] = set()  # ids (as of `id()`) of the rows that are kept

    def take(name: str, matters: Callable[[_Row], bool], spare: int = 0) -> None:
        nonlocal room
        for row in rows[name]:
            if id(row) not in kept and matters(row):
                cost = len(dumps(row)) + 2
                if cost > room - spare:
                    return
                room -= cost
                kept.add(id(row))

    take("mutations", lambda row: row["id"] in noted, room // 2)
    take("conflicts", lambda row: row["mutation"] in harmful, room // 2)
    take("gradients", lambda row: row["status"] != "ok", room // 8)
    take("gradients", lambda _: True, room // 4)
    take("timeline", lambda row: row["conflict"] is not None or row["mutation"] in noted, room // 4)
    take("mutations", lambda _: True, room // 4)
    take("timeline", lambda row: row["kind"] == "backward")
    take("timeline", lambda _: True)
    # events refer to conflicts by position, so conflicts may only be cut off at the end of their list
    cut = next((i for i, row in enumerate(rows["conflicts"]) if id(row) not in kept), len(rows["conflicts"]))
    for name, all_rows in rows.items():
        small[name] = [row for row in all_rows if id(row) in kept]
    small["conflicts"] = rows["conflicts"][:cut]
    for event in small["timeline"]:
        if event["conflict"] is not None and event["conflict"] >= cut:
            event["conflict"] = None
    return small


def _rounded(row: _Row) -> _Row:
    """Round to six digits, which is more than a display shows."""
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()}


def _folded(timeline: list[_Row]) -> list[_Row]:
    """Merge events that differ only in their time and version into one event that counts them."""
    events: dict[str, _Row] = {}
    for event in timeline:
        key = dumps([event[name] for name in ("kind", "tensor", "site", "task", "mutation", "conflict")])
        if key in events:
            events[key]["count"] += event["count"]
        else:
            events[key] = dict(event)
    return list(events.values())

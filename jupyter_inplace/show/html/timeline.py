"""The timeline section: the names of the lanes, the picture, its legend, and the events as a list."""

from __future__ import annotations

from jupyter_inplace.report import words
from jupyter_inplace.report.data import Report, TimelineEvent
from jupyter_inplace.show import svg
from jupyter_inplace.show.html.markup import Markup, tag
from jupyter_inplace.show.html.section import Tasks, scroll, section
from jupyter_inplace.show.picture import MAX_COLUMNS, MAX_LANES, Picture, picture

LEGEND = {
    "save": "◇ saved for backward",
    "saved-lost": "◇̸ saved, then overwritten",
    "write": "• write",
    "write-bad": "● harmful write",
    "write-unknown": "◌ write of which nobody can tell",
    "write-mixes": "◐ write between two reads",
    "read": "○ read by backward",
    "read-lost": "⊗ read of an overwritten value",
    "fold": "▬ folded",
}


def timeline(
    report: Report, tasks: Tasks, *, columns: int = MAX_COLUMNS, lanes: int = MAX_LANES, listed: int = 60
) -> Markup | None:
    """The section; None if there are no events.

    :param listed: the largest number of events in the list below the picture.
    """
    drawn = picture(report, columns, lanes)
    if drawn is None:
        return None
    note = f"program order, {words.counted(drawn.events, 'event')}"
    if drawn.hidden_lanes:
        note += f", {words.counted(drawn.hidden_lanes, 'more tensor')} not drawn"
    shapes = {mark.shape for lane in drawn.lanes for mark in lane.marks}
    legend = [[tag("span", said), " "] for shape, said in LEGEND.items() if shape in shapes]
    return section(
        "Timeline",
        note,
        tag(
            "div",
            _names(drawn),
            scroll(svg.draw(drawn, report, tasks), "Timeline, scrolls sideways"),
            class_="ji-lanes",
        ),
        tag("div", legend, class_="ji-legend", aria_hidden="true"),
        _list(report, listed) if listed else None,
        name="timeline",
    )


def _names(drawn: Picture) -> Markup:
    top = drawn.lanes[0].y - 16 if drawn.lanes else 0
    rows = [
        tag("div", lane.tensor, title=lane.tensor, style=f"height:{lane.height:.0f}px;line-height:32px")
        for lane in drawn.lanes
    ]
    return tag("div", rows, class_="ji-names ji-mono", style=f"padding-top:{top:.0f}px")


def _list(report: Report, limit: int) -> Markup:
    events = sorted(report.timeline, key=lambda event: event.seq)
    harmful = {m.id for m in report.mutations if m.verdict != "harmless"}

    def matters(event: TimelineEvent) -> bool:
        return event.conflict is not None or event.mutation in harmful or event.kind == "backward"

    chosen = events
    if len(events) > limit:
        chosen = [event for event in events if matters(event)][:limit]
    items = [tag("li", svg.describe(event, report)) for event in chosen]
    left = len(events) - len(chosen)
    return tag(
        "details",
        tag("summary", "The timeline as a list"),
        tag("ol", items),
        tag("p", f"and {words.counted(left, 'more event')} that hurt nothing", class_="ji-note") if left else None,
        class_="ji-list",
    )

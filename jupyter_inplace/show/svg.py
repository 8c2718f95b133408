"""The timeline as an SVG picture without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from jupyter_inplace.report import words
from jupyter_inplace.report.data import HARMFUL, Report, TimelineEvent
from jupyter_inplace.show.html.markup import Markup, tag
from jupyter_inplace.show.picture import Column, Lane, Link, Mark, Picture

AXIS = 24


def draw(picture: Picture, report: Report, task_class: Callable[[str | None], str]) -> Markup:
    """Draw the picture, without the names of the lanes: those are next to it, so that they stay while it scrolls."""
    height = picture.height + AXIS
    harmful = {m.id for m in report.mutations if m.verdict in HARMFUL}
    return tag(
        "svg",
        [_band(column, picture.height, task_class(column.task)) for column in picture.columns],
        [_lane(lane, picture.width) for lane in picture.lanes],
        [_link(link) for link in picture.links],
        [_mark(mark, lane.y, report) for lane in picture.lanes for mark in lane.marks],
        [_overwritten(lane, report, picture.width) for lane in picture.lanes],
        [_axis(column, picture.height, task_class(column.task), harmful) for column in picture.columns],
        class_="ji-svg",
        role="img",
        aria_label=f"Timeline of {words.counted(len(picture.lanes), 'tensor')}; the list below says the same.",
        width=picture.width,
        height=height,
        viewBox=f"0 0 {picture.width:.0f} {height:.0f}",
    )


def _band(column: Column, height: float, task: str) -> Markup | None:
    if column.kind == "code":
        return None
    kind = f"ji-band {task}" if column.kind == "backward" else "ji-gap"
    return tag("rect", class_=kind, x=column.x + 2, y=4, width=column.width - 4, height=height - 4, rx=3)


def _axis(column: Column, height: float, task: str, harmful: set[int]) -> Markup:
    hot = column.kind == "code" and any(event.mutation in harmful for event in column.events)
    text = words.clip(column.label, max(int(column.width / 6.4), 6))
    kind = "ji-tick " + ("ji-red" if hot else task if column.kind == "backward" else "ji-plain")
    return tag(
        "text",
        tag("title", column.label),
        text,
        class_=kind,
        x=column.x + column.width / 2,
        y=height + 16,
        text_anchor="middle",
    )


def _lane(lane: Lane, width: float) -> Iterator[Markup]:
    yield tag("line", class_="ji-rail", x1=0, x2=width, y1=lane.y, y2=lane.y)
    if not lane.marks:
        return
    first, last = lane.marks[0].x, lane.marks[-1].x
    turn = next((mark.x for mark in lane.marks if mark.shape == "write-bad"), last)
    if turn > first:
        yield tag("line", class_="ji-life", x1=first, x2=turn, y1=lane.y, y2=lane.y)
    if last > turn:
        yield tag("line", class_="ji-life ji-spoilt", x1=turn, x2=last, y1=lane.y, y2=lane.y)
    previous = None
    for mark in lane.marks:
        version = mark.events[-1].version
        if version is not None and version != previous and mark.shape != "fold":
            previous = version
            yield tag("text", f"v{version}", class_="ji-version", x=mark.x + 9, y=lane.y - 8)


def _link(link: Link) -> Markup:
    (x1, y1), (x2, y2) = link.start, link.end
    dip = 14 + min(abs(x2 - x1) / 40, 6) if y1 == y2 else 0
    low = max(y1, y2) + dip if y1 == y2 else (y1 + y2) / 2
    return tag(
        "path",
        class_="ji-link",
        d=f"M{x1:.0f} {y1 + 7:.0f}C{x1:.0f} {low:.0f} {x2:.0f} {low:.0f} {x2:.0f} {y2 + 7:.0f}",
    )


def _overwritten(lane: Lane, report: Report, width: float) -> Iterator[Markup]:
    """The text below a harmful write: what it did, in a few words."""
    told: set[int | None] = set()
    for mark in lane.marks:
        ids = {event.mutation for event in mark.events}
        if mark.shape != "write-bad" or ids <= told:
            continue
        told |= ids
        names = sorted({words.short_op(m.op) for m in report.mutations if m.id in ids})
        destroyed = sum(conflict.mutation in ids for conflict in report.conflicts)
        said = words.clip(", ".join(names), 30)
        if all(m.verdict == "rejected" for m in report.mutations if m.id in ids):
            said += " refused"
        elif all(m.verdict == "cuts" for m in report.mutations if m.id in ids):
            said += " is not in the gradient"
        elif destroyed:
            said += f" overwrites {words.counted(destroyed, 'saved tensor')}"
        # on the side with more room
        right = mark.x < width * 0.6
        yield tag(
            "text",
            said,
            class_="ji-red ji-said",
            x=mark.x + (10 if right else -10),
            y=lane.y + 24,
            text_anchor="start" if right else "end",
        )


def _mark(mark: Mark, y: float, report: Report) -> Markup:
    return tag(
        "g",
        tag("title", _told(mark, report)),
        _figure(mark, y),
        tag("text", f"×{mark.count:,}", class_="ji-count", x=mark.x - 7, y=y - 8, text_anchor="end")
        if mark.count > 1
        else None,
        class_=f"ji-mark ji-{mark.shape}",
        data_ji="event",
        data_ji_id=mark.events[0].seq,
    )


def _figure(mark: Mark, y: float) -> list[Markup]:
    x = mark.x
    if mark.shape in ("save", "saved-lost"):
        strike = tag("path", d=f"M{x - 6:.1f} {y + 6:.1f}l12 -12") if mark.shape == "saved-lost" else None
        return [tag("path", d=f"M{x:.1f} {y - 7:.1f}l7 7 -7 7 -7 -7z"), *([strike] if strike else [])]
    if mark.shape == "fold":
        return [tag("rect", x=x - 8, y=y - 3, width=16, height=6, rx=3)]
    radius = {"write": 4, "read": 4.5, "write-mixes": 5.5, "write-unknown": 5.5}.get(mark.shape, 6.5)
    parts = [tag("circle", cx=x, cy=y, r=radius)]
    if mark.shape == "read-lost":
        parts.append(tag("path", d=f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"))
    elif mark.shape == "write-mixes":
        parts.append(tag("path", d=f"M{x:.1f} {y - 5.5:.1f}v11"))
    return parts


def _told(mark: Mark, report: Report) -> str:
    """The hover text of a mark: its first events in words."""
    lines = [describe(event, report) for event in mark.events[:4]]
    if len(mark.events) > 4:
        lines.append(f"and {len(mark.events) - 4:,} more")
    return "; ".join(dict.fromkeys(lines))


_DEEDS = {"save": "saved for backward", "write": "written", "read": "read by backward", "backward": "backward"}


def describe(event: TimelineEvent, report: Report) -> str:
    """One event in words: ``line 7: z written, version 1, z.mul_(0.5)``."""
    place = words.where(event.site, report.cell) if event.site else ""
    said = _DEEDS.get(event.kind, event.kind)
    if event.kind == "backward":
        said += f" of {event.task}" if event.task else ""
    else:
        if any(m.id == event.mutation and m.verdict == "rejected" for m in report.mutations):
            said = "not written, torch refused"
        said = f"{event.tensor or 'a tensor'} {said}"
        said += f" of {event.task}" if event.task and event.kind == "read" else ""
    if event.version is not None:
        said += f", version {event.version}"
    if event.conflict is not None:
        said += ", overwritten since" if event.kind == "save" else ", not what was saved"
    if event.site is not None and event.site.text:
        said += f", {words.clip(event.site.text, 60)}"
    if event.count > 1:
        said += f", {event.count:,} times"
    return f"{place}: {said}" if place else said

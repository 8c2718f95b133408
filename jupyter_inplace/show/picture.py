"""The layout of the timeline: a lane for each tensor, columns in program order, marks, bands and links.

There is room for about a dozen columns and eight lanes. Consecutive events of one source line share a column, a backward pass
is one band, and if there are more, columns without harm are folded into counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from jupyter_inplace.report import words
from jupyter_inplace.report.data import HARMFUL, Report, TimelineEvent

MAX_COLUMNS = 14
MAX_LANES = 8
MIN_WIDTH = 700
SLOT, LANE, HIT_LANE = 26, 32, 54

Shape = Literal["save", "saved-lost", "write", "write-bad", "write-unknown", "write-mixes", "read", "read-lost", "fold"]
_WEIGHT: dict[Shape, int] = {"write-bad": 6, "read-lost": 5, "saved-lost": 4, "write-unknown": 4, "write-mixes": 3}


@dataclass(slots=True)
class Mark:
    """Events of the same kind in one column of one lane."""

    shape: Shape
    events: list[TimelineEvent]
    x: float = 0.0

    @property
    def count(self) -> int:
        """How many events there were."""
        return sum(event.count for event in self.events)


@dataclass(slots=True)
class Column:
    """A line of source, a backward pass (`task` is the name of its task, if known) or a fold."""

    kind: Literal["code", "backward", "fold"]
    label: str
    events: list[TimelineEvent]
    task: str | None = None
    x: float = 0.0
    width: float = 0.0


@dataclass(slots=True)
class Lane:
    """The lane of one tensor."""

    tensor: str
    marks: list[Mark] = field(default_factory=list)
    y: float = 0.0
    height: float = LANE

    @property
    def hit(self) -> bool:
        """Whether this lane has a harmful write, or a saved tensor that one overwrote."""
        return any(mark.shape in _WEIGHT for mark in self.marks)


@dataclass(slots=True)
class Link:
    """A line from a saved tensor to the write that overwrote it."""

    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(slots=True)
class Picture:
    """The complete layout, in pixels."""

    lanes: list[Lane]
    columns: list[Column]
    links: list[Link]
    width: float
    height: float
    hidden_lanes: int
    events: int


def picture(report: Report, max_columns: int = MAX_COLUMNS, max_lanes: int = MAX_LANES) -> Picture | None:
    """Lay out the timeline; None if it is empty."""
    events = sorted(report.timeline, key=lambda event: event.seq)
    if not events:
        return None
    verdicts = {m.id: m.verdict for m in report.mutations}
    shapes = {id(event): _shape(event, verdicts) for event in events}
    columns = _fold(_columns(events, report), shapes, max_columns)
    names = list(dict.fromkeys(event.tensor for event in events if event.tensor is not None))
    weight = dict.fromkeys(names, 0)
    for event in events:
        if event.tensor is not None:
            weight[event.tensor] = max(weight[event.tensor], _WEIGHT.get(shapes[id(event)], 0))
    kept = set(sorted(names, key=lambda name: -weight[name])[:max_lanes])
    # lanes with harm come first; otherwise the order of appearance is kept
    lanes = {name: Lane(name) for name in sorted(names, key=lambda name: weight[name] == 0) if name in kept}
    _place(columns, lanes, shapes)
    height = 24.0
    for lane in lanes.values():
        lane.height = HIT_LANE if lane.hit else LANE
        lane.y = height + LANE / 2
        height += lane.height
    return Picture(
        lanes=list(lanes.values()),
        columns=columns,
        links=_links(report, lanes.values()),
        width=columns[-1].x + columns[-1].width,
        height=height,
        hidden_lanes=len(names) - len(lanes),
        events=sum(event.count for event in events),
    )


def _shape(event: TimelineEvent, verdicts: Mapping[int, str]) -> Shape:
    if event.kind == "write":
        verdict = None if event.mutation is None else verdicts.get(event.mutation)
        if verdict in HARMFUL:
            return "write-bad"
        return "write-unknown" if verdict == "unknown" else "write-mixes" if verdict == "mixes" else "write"
    lost = event.conflict is not None
    if event.kind == "save":
        return "saved-lost" if lost else "save"
    return "read-lost" if lost else "read"


def _columns(events: Sequence[TimelineEvent], report: Report) -> list[Column]:
    columns: list[Column] = []
    for event in events:
        if event.kind in ("backward", "read"):
            kind: Literal["code", "backward"] = "backward"
            label = f"backward of {event.task}" if event.task else "backward"
        else:
            kind, label = "code", words.where(event.site, report.cell) if event.site else "elsewhere"
        if not columns or (columns[-1].kind, columns[-1].label) != (kind, label):
            columns.append(Column(kind, label, [], event.task if kind == "backward" else None))
        columns[-1].events.append(event)
    return columns


def _fold(columns: list[Column], shapes: dict[int, Shape], limit: int) -> list[Column]:
    """Keep the columns with the most harm, and fold those between them."""
    if len(columns) <= limit:
        return columns
    weight = [max(_WEIGHT.get(shapes[id(event)], 0) for event in column.events) for column in columns]
    # half of the columns: there may be a fold next to each
    kept = set(sorted(range(len(columns)), key=lambda i: (-weight[i], i))[: limit // 2])
    folded: list[Column] = []
    for keep, run in itertools.groupby(range(len(columns)), key=lambda i: i in kept):
        group = [columns[i] for i in run]
        if keep or len(group) == 1:
            folded += group
            continue
        events = [event for column in group for event in column.events]
        folded.append(Column("fold", words.counted(sum(event.count for event in events), "event"), events))
    return folded


def _place(columns: Sequence[Column], lanes: dict[str, Lane], shapes: dict[int, Shape]) -> None:
    placed: list[list[tuple[Mark, int]]] = []  # for each column its marks, each with its slot
    for column in columns:
        marks: dict[tuple[str, Shape], Mark] = {}
        for event in column.events:
            if event.tensor not in lanes:
                continue
            shape: Shape = "fold" if column.kind == "fold" else shapes[id(event)]
            marks.setdefault((event.tensor, shape), Mark(shape, [])).events.append(event)
        slots: dict[str, int] = {}
        placed.append([])
        for (tensor, _), mark in marks.items():
            lanes[tensor].marks.append(mark)
            placed[-1].append((mark, slots.get(tensor, 0)))
            slots[tensor] = slots.get(tensor, 0) + 1
        least = 7.0 * len(column.label) + 16 if column.kind != "code" else 60.0
        column.width = max(min(least, 170.0), SLOT * (max(slots.values(), default=1) + 1))
    spare = max(MIN_WIDTH - sum(column.width for column in columns), 0) / len(columns)
    x = 0.0
    for column, marks_of_column in zip(columns, placed, strict=True):
        column.x, column.width = x, column.width + spare
        x += column.width
        most = max((slot for _, slot in marks_of_column), default=0)
        for mark, slot in marks_of_column:
            mark.x = column.x + column.width / 2 + SLOT * (slot - most / 2)


def _links(report: Report, lanes: Iterable[Lane]) -> list[Link]:
    saves: dict[int, tuple[float, float]] = {}
    writes: dict[int, tuple[float, float]] = {}
    for lane in lanes:
        for mark in lane.marks:
            for event in mark.events:
                if event.kind == "save" and event.conflict is not None:
                    saves.setdefault(event.conflict, (mark.x, lane.y))
                elif event.kind == "write" and event.mutation is not None:
                    writes.setdefault(event.mutation, (mark.x, lane.y))
    ends = {
        (saves[i], writes[conflict.mutation])
        for i, conflict in enumerate(report.conflicts)
        if i in saves and conflict.mutation in writes
    }
    return [Link(start, end) for start, end in sorted(ends) if start != end]

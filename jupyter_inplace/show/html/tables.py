"""The tables: gradients (leaves by tasks), cosines between tasks, and writes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from jupyter_inplace.report import words
from jupyter_inplace.report.data import Gradient, Mutation, Report
from jupyter_inplace.report.order import opposition
from jupyter_inplace.show.html.markup import Markup, name, tag
from jupyter_inplace.show.html.section import Tasks, scroll, section

MAX_TASKS = 12
OPEN_CELLS = 80  # cells of the gradient table that are visible at once
FOLDED_CELLS = 120  # cells that can be unfolded below
MAX_COSINES = 12


def gradients(report: Report, tasks: Tasks) -> Markup | None:
    """The gradient table. If not all leaves are visible at once, those that are hit come first."""
    if not report.gradients:
        return None
    bad = {g.task for g in report.gradients if g.status != "ok"}
    names = list(dict.fromkeys([t.name for t in report.tasks] + [g.task for g in report.gradients]))
    have = {g.task for g in report.gradients}
    columns = sorted((n for n in names if n in have), key=lambda n: n not in bad)[:MAX_TASKS]
    rows: dict[str, dict[str, list[Gradient]]] = defaultdict(lambda: defaultdict(list))
    for g in report.gradients:
        rows[g.leaf][g.task].append(g)
    open_rows = max(OPEN_CELLS // len(columns), 4)
    leaves = list(rows)
    if len(leaves) > open_rows:
        hit = {g.leaf for g in report.gradients if g.status != "ok"}
        leaves.sort(key=lambda leaf: leaf not in hit)
    folded = leaves[open_rows : open_rows + max(FOLDED_CELLS // len(columns), 4)]
    left = len(leaves) - min(open_rows, len(leaves)) - len(folded)
    hidden = len(have) - len(columns)
    more = [
        f"{words.counted(left, 'more leaf', 'more leaves')} not shown" if left else "",
        f"{words.counted(hidden, 'more task')} not shown" if hidden else "",
    ]
    head = tag("tr", tag("th", "leaf", scope="col"), [tag("th", _task(n, tasks), scope="col") for n in columns])

    def table(part: Sequence[str]) -> Markup:
        body = [row for leaf in part for row in _gradient_rows(leaf, rows[leaf], columns)]
        return scroll(tag("table", tag("thead", head), tag("tbody", body)), "Gradients, leaves by tasks")

    return section(
        "Gradients, task by leaf",
        "as run, against the gradient of the values that forward used",
        table(leaves[:open_rows]),
        tag("details", tag("summary", words.counted(len(folded), "more leaf", "more leaves")), table(folded))
        if folded
        else None,
        [tag("p", text, class_="ji-note") for text in more if text],
        tag(
            "p",
            "Numbers are norms of the reference gradient; beside “wrong”, the relative difference.",
            class_="ji-note",
        ),
        name="gradients",
    )


def _task(name: str, tasks: Tasks) -> Markup:
    return tag("code", name, class_=tasks(name))


def _gradient_rows(leaf: str, by_task: dict[str, list[Gradient]], columns: Sequence[str]) -> list[Markup]:
    depth = max(len(rows) for rows in by_task.values())
    result = []
    for i in range(depth):
        cells = [_cell(by_task[n][i]) if i < len(by_task.get(n, ())) else tag("td", "–") for n in columns]
        result.append(tag("tr", tag("th", name(leaf), scope="row"), cells))
    return result


def _cell(g: Gradient) -> Markup:
    word = words.STATUS_WORDS.get(g.status, g.status)
    below = [f"v{v.version} {words.number(v.norm)}" for v in g.by_version]
    if g.status == "wrong":
        below = [f"‖as run‖ {words.number(g.norm_as_run)}", f"‖ref‖ {words.number(g.norm_reference)}", *below]
    if g.occurrence is not None:
        below.append(f"iteration {g.occurrence}")
    return tag(
        "td",
        tag("span", word, class_=f"ji-chip ji-{word.replace(' ', '-')}"),
        " ",
        words.figures(g),
        tag("small", " · ".join(below)) if below else None,
        class_=_heat(g),
        title=_exact(g),
        data_ji="gradient",
        data_ji_task=g.task,
        data_ji_leaf=g.leaf,
        data_ji_status=g.status,
    )


def _heat(g: Gradient) -> str | None:
    """Shading by the relative difference, in four steps."""
    if g.status == "ok":
        return None
    difference = g.relative_difference
    if g.status != "wrong" or difference is None or not math.isfinite(difference):
        return "ji-h3"
    return f"ji-h{1 + sum(difference >= step for step in (0.01, 0.1, 1))}"


def _exact(g: Gradient) -> str:
    parts = {
        "norm as run": g.norm_as_run,
        "norm of the reference": g.norm_reference,
        "relative difference": g.relative_difference,
        "cosine": g.cosine,
    }
    return ", ".join(f"{name} {value!r}" for name, value in parts.items() if value is not None)


def cosines(report: Report) -> Markup | None:
    """The cosine between two tasks' gradients at each shared leaf, the most opposed first."""
    if not report.task_cosines:
        return None
    shown = sorted(report.task_cosines, key=opposition)[:MAX_COSINES]
    left = len(report.task_cosines) - len(shown)
    as_run = any(c.as_run is not None for c in shown)
    titles = ("leaf", "tasks", *(["as run"] if as_run else []), "reference")
    head = [tag("th", title, scope="col") for title in titles]
    body = [
        tag(
            "tr",
            tag("th", name(c.leaf), scope="row"),
            tag("td", tag("code", ", ".join(c.tasks))),
            tag("td", words.cosine(c.as_run, "–")) if as_run else None,
            tag("td", words.cosine(c.reference, "–")),
            data_ji="task-cosine",
            data_ji_leaf=c.leaf,
        )
        for c in shown
    ]
    return section(
        "Cosine between the tasks' gradients",
        "negative: the tasks pull a shared leaf in opposite directions",
        scroll(tag("table", tag("thead", tag("tr", head)), tag("tbody", body)), "Cosines between tasks"),
        tag("p", f"and {left:,} more", class_="ji-note") if left else None,
        name="task-cosines",
    )


def writes(report: Report, mutations: Iterable[Mutation], total: int | None = None) -> Markup:
    """A table with a row for each write."""
    rows = list(mutations)
    total = len(report.mutations) if total is None else total
    titles = ("write", "where", "tensor", "version", "times", "verdict")
    head = [tag("th", title, scope="col", class_="ji-left" if i < 3 else None) for i, title in enumerate(titles)]
    body = [
        tag(
            "tr",
            tag("th", tag("code", words.write_expression(m, 60)), scope="row"),
            tag("td", words.where(m.site, report.cell), class_="ji-left"),
            tag("td", tag("code", words.clip(m.tensor, 40)), _others(m), class_="ji-left"),
            tag("td", "–" if m.versions is None else f"{m.versions[0]} → {m.versions[1]}"),
            tag("td", f"{m.count:,}"),
            tag("td", m.verdict),
            data_ji="mutation",
            data_ji_id=m.id,
            data_ji_verdict=m.verdict,
        )
        for m in rows
    ]
    left = total - len(rows)
    return tag(
        "div",
        scroll(tag("table", tag("thead", tag("tr", head)), tag("tbody", body)), "Writes"),
        tag("p", f"and {words.counted(left, 'more row')}", class_="ji-note") if left > 0 else None,
    )


def _others(mutation: Mutation) -> str:
    more = len(set(mutation.tensors) - {mutation.tensor})
    return f" and {words.counted(more, 'more tensor')}" if more else ""

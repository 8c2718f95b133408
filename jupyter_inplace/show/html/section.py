"""What the sections of the HTML share: their frame, and the colours of the tasks."""

from __future__ import annotations

from jupyter_inplace.report.data import Report
from jupyter_inplace.show.html.markup import Child, Markup, tag

HUES = 6


class Tasks:
    """The CSS class for the colour of each task. The name of the task is always shown as well."""

    def __init__(self, report: Report) -> None:
        names = [t.name for t in report.tasks] + [g.task for g in report.gradients]
        self._index = {name: i for i, name in enumerate(dict.fromkeys(names))}

    def __call__(self, task: str | None) -> str:
        """``ji-t0`` to ``ji-t5``; ``ji-plain`` if there is no such task."""
        index = self._index.get(task) if task is not None else None
        return "ji-plain" if index is None else f"ji-t{index % HUES}"


def section(title: str, note: str | None, *children: Child, name: str, **attributes: str) -> Markup:
    """A titled part of the panel; `name` is its ``data-ji``."""
    header = tag("header", tag("h4", title), tag("span", note, class_="ji-note") if note else None)
    return tag("section", header, *children, class_="ji-part", aria_label=title, data_ji=name, **attributes)


def scroll(child: Child, label: str) -> Markup:
    """A frame that scrolls sideways, also by keyboard."""
    return tag("div", child, class_="ji-scroll", tabindex=0, role="region", aria_label=label)

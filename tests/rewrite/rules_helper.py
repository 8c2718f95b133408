"""Reports made by hand, as far as the rules read them: a write and what it destroyed, by the text of their expressions."""

from __future__ import annotations

import textwrap

from jupyter_inplace.report import Cell, Conflict, Mutation, Report, Site
from jupyter_inplace.rewrite.candidate import Candidate
from jupyter_inplace.rewrite.candidates import candidates


def site(cell, text, nth=0):
    """The site of the nth occurrence of an expression in a cell."""
    at = -1
    for _ in range(nth + 1):
        at = cell.index(text, at + 1)
    line, column = cell.count("\n", 0, at) + 1, at - (cell.rfind("\n", 0, at) + 1)
    end = at + len(text)
    end_line, end_column = cell.count("\n", 0, end) + 1, end - (cell.rfind("\n", 0, end) + 1)
    return Site(
        file="In[7]", line=line, column=column, end_line=end_line, end_column=end_column, text=text,
        line_text=cell.split("\n")[line - 1].strip(), cell_line=line,
    )  # fmt: skip


def report(cell, *writes):
    """A report of a cell: each write is a dict of `text`, and of `verdict`, `tensor`, `op`, `saved`, ... where they matter."""
    mutations, conflicts = [], []
    defaults = {"verdict": "breaks", "tensor": "h", "op": "aten.mul_.Tensor", "tasks": (), "leaves": (), "nth": 0}
    for number, given in enumerate(writes):
        write = {**defaults, **given}
        hit = {"tasks": write["tasks"], "leaves": write["leaves"]}
        where = write["site"] if "site" in write else site(cell, write["text"], write["nth"])
        mutations.append(
            Mutation(id=number, op=write["op"], tensor=write["tensor"], site=where, verdict=write["verdict"], **hit)
        )
        conflicts += [
            Conflict(
                mutation=number,
                node=write.get("node", "SomeBackward0"),
                saved_as=write.get("saved_as", "self"),
                tensor=write.get("saved_tensor", write["tensor"]),
                saved_site=site(cell, saved),
                **hit,
            )
            for saved in ([write["saved"]] if isinstance(write.get("saved"), str) else write.get("saved", ()))
        ]
    return Report(
        verdict=mutations[0].verdict if mutations else "harmless",
        cell=Cell(source=cell, execution_count=7),
        mutations=tuple(mutations),
        conflicts=tuple(conflicts),
    )


def cell_of(text):
    return textwrap.dedent(text).strip("\n") + "\n"


def rewrites(before, *writes, **write) -> tuple[Candidate, ...]:
    """The candidates for a cell with one write (given by keywords) or several."""
    before = cell_of(before)
    return candidates(before, report(before, *(writes or (write,))))


def becomes(before, after, *writes, **write) -> Candidate:
    """Assert that one candidate is exactly the cell `after`, and return it."""
    found = rewrites(before, *writes, **write)
    wanted = cell_of(after)
    match = [candidate for candidate in found if candidate.source == wanted]
    assert match, "no such candidate; offered were:\n" + "\n---\n".join(c.title + "\n" + c.diff for c in found)
    return match[0]

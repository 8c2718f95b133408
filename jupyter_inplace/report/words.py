"""Words and number formats that the text and the HTML share. ASCII, apart from what the user wrote."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath

from jupyter_inplace._syntax import source_lines
from jupyter_inplace.report.data import HARMFUL, Cell, Conflict, Gradient, Mutation, Report, Site, Verification

_CELL_FILE = re.compile(r"In\[[^\]/\\]*\]")


def is_cell(file: str) -> bool:
    """Whether a site's file is a notebook cell (``In[7]``)."""
    return _CELL_FILE.fullmatch(file) is not None


def base_name(file: str) -> str:
    """The last part of a path of any operating system; the name of a cell unchanged."""
    name = PureWindowsPath(file).name if "\\" in file else PurePosixPath(file).name
    return file if is_cell(file) else name or file


def where(site: Site | None, cell: Cell | None = None) -> str:
    """``line 7``, ``In[3] line 7`` in another cell, ``model.py:20`` in a file."""
    if site is None:
        return "no Python line"
    if not is_cell(site.file):
        return f"{base_name(site.file)}:{site.line}"
    here = cell is None or cell.execution_count is None or site.file == f"In[{cell.execution_count}]"
    return f"line {site.line}" if here else f"{site.file} line {site.line}"


def listed(names: Sequence[str], limit: int = 3) -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b and 5 more``."""
    shown = list(names[:limit]) if len(names) <= limit else [*names[: limit - 1], f"{len(names) - limit + 1} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 write``, ``1,200 writes``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def number(value: float | None, none: str = "-") -> str:
    """Three significant digits."""
    if value is None:
        return none
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}"
    value = float(f"{value:.2e}")  # so that 9.999 becomes 10.0
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{min(max(digits, 0), 5)}f}"


def cosine(value: float | None, none: str = "-") -> str:
    """Two decimals, with a sign only if negative; never ``-0.00``."""
    return none if value is None else "NaN" if math.isnan(value) else f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def percent(value: float) -> str:
    """A relative difference, worded for a sentence."""
    if not math.isfinite(value):
        return "an infinite factor"
    if value >= 10:
        return f"a factor of {value:,.0f}"
    return f"{value * 100:.0f} %" if value >= 0.1 else f"{value * 100:.2g} %"


def size(count: int) -> str:
    """A number of bytes."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"


def clip(text: str, width: int) -> str:
    """One line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3].rstrip() + "..."


def shorten(name: str, width: int) -> str:
    """The end of a long name, which distinguishes it from similar ones: ``...12.attention.proj.weight``."""
    line = " ".join(name.split())
    return line if len(line) <= width else "..." + line[3 - width :]


def expression(site: Site | None, fallback: str, width: int = 44) -> str:
    """The expression at a site; a long call without its arguments."""
    if site is None or not site.text.strip():
        return fallback
    line = " ".join(site.text.split())
    if len(line) > width and line.endswith(")"):
        depth = 0
        for i in range(len(line) - 1, 0, -1):
            depth += (line[i] == ")") - (line[i] == "(")
            if depth == 0:
                line = line[:i] + "(...)"
                break
    return clip(line, width)


def write_expression(mutation: Mutation, width: int = 44) -> str:
    """What a person would call the write: its expression, or its op and tensor if there is none."""
    if mutation.op == "external":
        framework = "TensorFlow" if mutation.framework == "tensorflow" else "torch"
        return expression(mutation.site, f"a write to {mutation.tensor} from outside of {framework}", width)
    return expression(mutation.site, f"{short_op(mutation.op)} on {mutation.tensor}", width)


def short_op(op: str) -> str:
    """``mul_`` for ``aten.mul_.Tensor``; ``Adam.step`` as it is."""
    parts = op.split(".")
    return parts[1] if parts[0] == "aten" and len(parts) > 1 else op


def versions(mutation: Mutation, arrow: str = "->") -> str:
    """``version 0 -> 1``."""
    if mutation.versions is None:
        return "no version counter"
    before, after = mutation.versions
    return f"version {before}, version counter not bumped" if before == after else f"version {before} {arrow} {after}"


def saver(conflict: Conflict, written: str) -> str:
    """``TanhBackward0 saved its result, version 0; backward found version 1``.

    :param written: the name of the tensor that was written; the saved one is named only if its name differs.
    """
    said = conflict.node + (f" in {conflict.module}" if conflict.module else "")
    said += " saved " + (f"its {conflict.saved_as}" if conflict.saved_as else "a tensor")
    said += f" {conflict.tensor}" if conflict.tensor != written else ""
    said += "" if conflict.saved_version is None else f", version {conflict.saved_version}"
    said += " before the watch began" if conflict.saved_before_watch else ""
    if conflict.pending:
        return f"{said}; no backward has read it yet"
    if conflict.found_version is None or conflict.found_version == conflict.saved_version:
        return f"{said}; backward found other values"
    return f"{said}; backward found {conflict.found_version}"


def tally(report: Report, separator: str = "; ") -> str:
    """The second line of a report: counts of writes, tasks, leaves and proved rewrites."""
    writes = sum(m.count for m in report.mutations)
    harmful = sum(m.count for m in report.mutations if m.verdict in HARMFUL)
    open_ones = sum(m.count for m in report.mutations if m.verdict == "unknown")
    parts = [f"{harmful:,} harmful of {counted(writes, 'write')}" + (f", {open_ones:,} unknown" if open_ones else "")]
    if report.tasks:
        parts.append(counted(len(report.tasks), "task"))
    leaves = {g.leaf for g in report.gradients}
    if leaves:
        hit = {g.leaf for g in report.gradients if g.status not in ("ok", "unknown")}
        parts.append(f"{len(hit):,} of {counted(len(leaves), 'leaf', 'leaves')} hit")
    if report.fixes:
        proved = sum(f.verification.status == "passed" for f in report.fixes)
        parts.append(f"{proved} of {counted(len(report.fixes), 'rewrite')} proved")
    return separator.join(parts)


def deed(mutation: Mutation) -> str:
    """``breaks seg and depth``, ``rejected``."""
    tasks = listed(mutation.tasks, 4)
    if mutation.verdict == "unknown":
        return f"not known whether it harms {tasks or 'a gradient'}"
    said = mutation.verdict + (f"{', for' if mutation.verdict == 'rejected' else ''} {tasks}" if tasks else "")
    return said + (", pending: no backward has run yet" if mutation.pending else "")


#: What the note of a write says about an effect, for those effects whose wording is fixed.
EFFECT_WORDS = {
    "discards_gradient": "cleared before anything read it",
    "cuts_later_reads": "what reads it later gets a gradient that does not see the write",
}
PROOF_WORDS = {"passed": "proved", "failed": "fails", "unverified": "unverified"}
KIND_WORDS = {
    "clone": "clone",
    "out_of_place": "out of place",
    "no_grad": "no_grad",
    "reorder": "reorder",
    "preserve": "preserve what was saved",
}
STATUS_WORDS = {
    "ok": "equal",
    "raises": "raises",
    "wrong": "wrong",
    "lost": "lost",
    "not_run": "not run",
    "unknown": "not known",
}


def proof(verification: Verification) -> str:
    """What the proof of a rewrite showed; for a failed one, only what failed."""
    if verification.pending:
        return "being proved"
    v, failed = verification, verification.status == "failed"
    total, equal = len(v.gradients), sum(g.status == "ok" for g in v.gradients)
    gradients = f"{equal} of {total} gradients equal the reference" if total else "gradients equal the reference"
    parts = []
    if v.verdict in HARMFUL:
        parts.append(f"still {v.verdict}")
    elif v.runs is False:
        parts.append("does not run")
    elif v.verdict == "mixes":
        parts.append("mixes")
    elif v.verdict == "unknown":
        parts.append("not known whether it harms a gradient")
    if v.losses_equal is not None and v.losses_equal != failed:
        parts.append("same losses" if v.losses_equal else "other losses")
    if v.gradients_equal or (v.gradients_equal is False and v.runs):
        parts.append(gradients if v.gradients_equal or total else "other gradients")
    if v.covered is not None:
        parts.append(f"over {counted(v.covered, 'round')}")
    if v.reason:
        parts.append(v.reason)
    return ", ".join(parts) or ("runs" if v.runs else "")


def memory(extra_bytes: int | None) -> str:
    """The additional memory of a rewrite."""
    return "" if extra_bytes is None else f"{'+' if extra_bytes >= 0 else '-'}{size(abs(extra_bytes))}"


def figures(gradient: Gradient) -> str:
    """The numbers in one cell of the gradient table: difference and cosine if it is wrong, else the norm."""
    if gradient.status == "wrong":
        parts = [number(gradient.relative_difference, "")]
        parts += [f"cos {cosine(gradient.cosine)}"] if gradient.cosine is not None else []
        return ", ".join(filter(None, parts))
    norm = gradient.norm_as_run if gradient.norm_reference is None else gradient.norm_reference
    return number(norm, "")


def diff_lines(diff: str) -> list[str]:
    """A unified diff without its file header."""
    lines = source_lines(diff)
    return lines[2:] if len(lines) > 1 and lines[0].startswith("---") and lines[1].startswith("+++") else lines

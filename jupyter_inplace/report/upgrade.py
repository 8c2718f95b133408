"""Reports that version 0.1.0 wrote: some facts were in their sentences only, and are fields now.

The sentences below are those of version 0.1.0. They must stay as they are, whatever this version says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from jupyter_inplace.report.data import Effect, Mutation, Report
from jupyter_inplace.report.scope import rank_note, step_note

R = TypeVar("R", bound=Report)

_NOTHING_RAN = "nothing to watch: no torch ran here."
_DISCARDED = "cleared before anything read it"
_LATER_READS = "what reads it later gets a gradient that does not see the write"
_SHARED = "overwrote the gradient"


def upgraded(report: R) -> R:
    """A report with all fields of this version; the same object if it has them already."""
    mutations = tuple(_upgraded(m, report) for m in report.mutations)
    nothing_ran = report.nothing_ran or (not mutations and report.summary.startswith(_NOTHING_RAN))
    if mutations == report.mutations and nothing_ran == report.nothing_ran:
        return report
    return replace(report, mutations=mutations, nothing_ran=nothing_ran)


def _upgraded(m: Mutation, report: Report) -> Mutation:
    if m.note is None or m.effects or m.own_note is not None:
        return m
    own: str | None = m.note
    for added in (step_note(m, report.watched_steps), rank_note(m, report.ranks)):
        if own is not None and added is not None:
            own = own.removesuffix(added).removesuffix(", ") or None
    effects: list[Effect] = []
    if own is not None and own == _DISCARDED:
        effects.append("discards_gradient")
    if own is not None and _LATER_READS in own:
        effects.append("cuts_later_reads")
    if own is not None and own.startswith(_SHARED):
        effects.append("overwrites_gradients")
    return replace(m, effects=tuple(effects), own_note=own if own != m.note else None)

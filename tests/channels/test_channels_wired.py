"""Every cell of every channel once more, with tripwires from the start: the report is the one that the mode makes."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import pytest
import test_channel_backward_writes
import test_channel_batch_norm
import test_channel_checkpoints
import test_channel_custom_functions
import test_channel_detached
import test_channel_exported_memory
import test_channel_grad_aliases
import test_channel_untracked_writes
import test_channel_unversioned
from cell_oracle import watched

from jupyter_inplace.record.dispatch.wiring import Wiring

MODULES = (
    test_channel_exported_memory,
    test_channel_batch_norm,
    test_channel_checkpoints,
    test_channel_custom_functions,
    test_channel_grad_aliases,
    test_channel_backward_writes,
    test_channel_detached,
    test_channel_untracked_writes,
    test_channel_unversioned,
)
CELLS = {
    f"{module.__name__.removeprefix('test_channel_')}: {name}": cell.source
    for module in MODULES
    for name, cell in module.CELLS.items()
}


def told(report: dict[str, Any]) -> dict[str, Any]:
    """What a report says of the program, without when, how fast, and what a tensor without a name was called."""
    gc.collect()
    # Rows are apart by memory, which is given out again: writes of one line are in one row or in two, as it comes.
    writes: Counter[Any] = Counter()
    for row in report["mutations"]:
        site = row["site"] or {}
        writes[row["op"], row["verdict"], site.get("line"), site.get("text"), *row["tasks"], *row["leaves"]] += row[
            "count"
        ]
    return {
        "verdict": report["verdict"],
        "rows": writes,
        "conflicts": [
            (row["node"], row["saved_site"], row["saved_version"], row["found_version"]) for row in report["conflicts"]
        ],
        "tasks": report["tasks"],
        "gradients": [row for row in report["gradients"] if row["status"] != "ok"],
        "refused": [note for note in report["blind_spots"] if "missing" in note or "failed" in note],
    }


@pytest.fixture(scope="module")
def by_mode(cells):
    reports: dict[str, Any] = {}

    def run(name: str) -> Any:
        if name not in reports:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Wiring, "at_once", False)
                reports[name] = told(watched(cells, CELLS[name]))
        return reports[name]

    return run


@pytest.mark.parametrize("name", CELLS)
def test_same_report(cells, by_mode, name, request):
    expected = by_mode(name)
    request.getfixturevalue("tripwires")
    assert told(watched(cells, CELLS[name])) == expected

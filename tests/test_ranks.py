"""Jobs of several processes: torchrun with two ranks on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_inplace import load
from jupyter_inplace.report import RankCount

SAMPLES = Path(__file__).with_name("ranks_samples")


def torchrun(folder, *words):
    """Two ranks on this machine; what hangs is ended."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "127.0.0.1:0", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    environment["PYTHONFAULTHANDLER"] = "1"  # a rank that dies says where
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A watched job of which one rank dies."""
    folder = tmp_path_factory.mktemp("job")
    ended = torchrun(folder, "-m", "jupyter_inplace", "--save", "reports", str(SAMPLES / "train.py"))
    return folder / "reports", ended


def test_each_rank_leaves_one_report_also_when_one_dies(job):
    reports, ended = job
    assert ended.returncode == 1
    assert sorted(p.name for p in reports.iterdir()) == ["train.rank0-of-2.json", "train.rank1-of-2.json"]
    zero, one = (load(reports / f"train.rank{rank}-of-2.json") for rank in (0, 1))
    assert (zero.rank, zero.world, zero.verdict) == (0, 2, "corrupts")
    assert (one.rank, one.world, one.verdict) == (1, 2, "breaks")
    assert one.error.type == "RuntimeError"
    assert "breaks: rank 1: backward fails" in ended.stderr


def test_loaded_together_a_site_is_one_row(job):
    merged = load(job[0] / "*.json")
    rows = {m.site.text: m for m in merged.mutations if m.verdict != "harmless"}
    assert rows.keys() == {"h.data.mul_(2)", "h.data.mul_(3)", "dead.mul_(2)"}
    assert rows["h.data.mul_(2)"].ranks == (RankCount(0, 1), RankCount(1, 2))
    assert rows["h.data.mul_(2)"].note == "1 on rank 0, 2 on rank 1"
    assert rows["h.data.mul_(3)"].note == rows["dead.mul_(2)"].note == "on rank 1 only"
    assert (merged.verdict, merged.ranks, merged.rank) == ("breaks", (0, 1), None)
    assert "modified by an inplace operation" in merged.error.message  # not the connection that this closed
    assert merged.error.message.endswith("(rank 1)")


# --- wrapped models --------------------------------------------------------------------------------------------------

#: For each program the harmful sites on rank 0 and on rank 1.
EXPECTED = {
    "ordinary": ("", ""),
    "bucket_views": ("", ""),
    "static_graph": ("", ""),
    "twice": ("", ""),
    "eval_then_train": ("model(batch(1))", "model(batch(1))"),
    "hidden_sync": ("model.module.scale.data.fill_(3.0)", "model(batch(1))"),
    "no_sync": ("", ""),
    "step_in_hooks": ("", ""),
    "own_communication": ("", ""),
    "reduced_in_hooks": ("", ""),
    "reduced_what_was_saved": ("dist.all_reduce(h.data)", "dist.all_reduce(h.data)"),
    "logged": ("", ""),
    "one_rank_only": ("", "out.data.mul_(2)"),
    "sharded": ("", ""),
    "sharded_flat_bad": ("", "h.data.mul_(2)"),
}


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrapped")
    ended = torchrun(folder, str(SAMPLES / "wrapped.py"), str(folder))
    assert ended.returncode == 0, ended.stderr[-4000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("program", [*EXPECTED, "sharded_one_rank_bad"])
def test_a_watched_job_does_what_it_does_unwatched(wrapped, program):
    """Bit for bit; and one rank that is watched, and works out every gradient, stays in step with one that is not."""
    assert [rank[program]["same"] for rank in wrapped] == [True, True]
    assert [rank[program]["rank"] for rank in wrapped] == [0, 1]


@pytest.mark.parametrize("program", EXPECTED)
def test_verdicts_of_wrapped_models(wrapped, program):
    for found, site in zip(wrapped, EXPECTED[program], strict=True):
        result = found[program]
        assert result["verdict"] == ("corrupts" if site else "harmless"), result["summary"]
        assert set(result["sites"][:1]) == ({site} if site else set())


def test_what_is_not_covered_of_sharded_models_is_said(wrapped):
    """The gathered weights are freed until the backward itself gathers them again: nothing can be worked out before it."""
    missing = " ".join(wrapped[1]["sharded_one_rank_bad"]["missing"])
    assert "gradients of loss are missing" in missing
    assert "memory of saved tensors was freed and filled again" in missing

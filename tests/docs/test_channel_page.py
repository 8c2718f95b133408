"""The channel that `docs/develop/channel.md` shows: pasted into a copy of the package it finds its write, and nothing else has to change."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from code_blocks import blocks

ROOT = Path(__file__).parents[2]
REGISTRY = "jupyter_inplace/record/channels/registry.py"


def pasted(tree):
    """Do what the page says in a copy of the package; returns the files that it touches."""
    found = {
        block.title: block.code
        for block in blocks((ROOT / "docs/develop/channel.md").read_text("utf-8"), "python")
        if block.title is not None
    }
    line = found.pop("registry line")
    for name, code in found.items():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(code, encoding="utf-8")
    registry = (tree / REGISTRY).read_text("utf-8")
    channel = re.search(r"Line\((\w+)", line)[1]
    module = next(name for name in found if name.startswith("jupyter_inplace/")).removesuffix(".py").replace("/", ".")
    with_import = registry.replace(
        "from jupyter_inplace.record.channels.untracked_writes",
        f"from {module} import {channel}\nfrom jupyter_inplace.record.channels.untracked_writes",
    )
    head, _, tail = with_import.rpartition(")\n")
    (tree / REGISTRY).write_text(f"{head}    {line.strip()},\n)\n{tail}", encoding="utf-8")
    return {REGISTRY, *found}


def different(tree):
    """The files of the package in `tree` that are new or not those of this checkout."""
    out = set()
    for path in (tree / "jupyter_inplace").rglob("*.py"):
        name = path.relative_to(tree).as_posix()
        mine = ROOT / name
        if not mine.exists() or not filecmp.cmp(path, mine, shallow=False):
            out.add(name)
    return out


def test_the_channel_of_the_page(tmp_path):
    left_out = shutil.ignore_patterns("__pycache__", "static", "labextension")
    shutil.copytree(ROOT / "jupyter_inplace", tmp_path / "jupyter_inplace", ignore=left_out)
    touched = pasted(tmp_path)
    assert different(tmp_path) == {name for name in touched if name.startswith("jupyter_inplace/")}
    assert len(different(tmp_path)) == 2
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/channels"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout


def test_without_its_line_the_channel_finds_nothing(tmp_path):
    """The test of the page can fail."""
    left_out = shutil.ignore_patterns("__pycache__", "static", "labextension")
    shutil.copytree(ROOT / "jupyter_inplace", tmp_path / "jupyter_inplace", ignore=left_out)
    pasted(tmp_path)
    shutil.copy(ROOT / REGISTRY, tmp_path / REGISTRY)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/channels"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 failed, 1 passed" in ended.stdout

"""What is installed: built from a checkout with npm, and from the sdist without it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import jupyter_inplace

ROOT = Path(__file__).parents[1]
SHARED = "share/jupyter/labextensions/jupyter-inplace"


def build(kind: str, source: Path, target: Path, path: str) -> Path:
    """Builds an sdist or a wheel of `source` with the programs of `path`; returns the file."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    done = subprocess.run(
        command, check=False, cwd=source, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (made,) = [item for item in target.iterdir() if item.name.endswith(".whl" if kind == "wheel" else ".tar.gz")]
    return made


@pytest.fixture(scope="module")
def without_npm(tmp_path_factory):
    """A PATH on which there is no npm."""
    folder = tmp_path_factory.mktemp("bin")
    git = shutil.which("git")
    if git is not None:
        (folder / "git").symlink_to(git)
    assert shutil.which("npm", path=str(folder)) is None
    return str(folder)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory, without_npm):
    # The outputs are newer than their sources here: whoever ran the other tests has built them.
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"), without_npm)


@pytest.mark.slow
def test_a_wheel_comes_from_the_sdist_without_node(sdist, tmp_path, without_npm):
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert not [name for name in names if "/labextension/src" in name or "node_modules" in name]
    (source,) = (tmp_path / "unpacked").iterdir()

    wheel = build("wheel", source, tmp_path / "wheel", without_npm)
    assert wheel.stat().st_size < 2_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        shared = [name.split(".data/data/")[1] for name in names if ".data/data/" in name]
        panel = archive.read("jupyter_inplace/static/panel.js")
    assert panel == (ROOT / "jupyter_inplace" / "static" / "panel.js").read_bytes()
    assert len(panel) < 120_000
    assert {f"{SHARED}/package.json", f"{SHARED}/install.json", f"{SHARED}/schemas/jupyter-inplace/plugin.json"} <= set(
        shared
    )
    assert not [name for name in names if name.startswith("jupyter_inplace/labextension/")], "shipped once"
    assert "jupyter_inplace/static/LICENSE-preact.txt" in names


@pytest.mark.slow
def test_a_missing_front_end_without_npm_is_said(sdist, tmp_path, without_npm):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    shutil.rmtree(source / "jupyter_inplace" / "static")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "out")]
    done = subprocess.run(
        command, check=False, cwd=source, env={**os.environ, "PATH": without_npm}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "The built front end is missing" in done.stderr + done.stdout


def test_no_registry_host_stands_in_the_lock_file():
    text = (ROOT / "labextension" / "package-lock.json").read_text()
    assert '"resolved"' not in text
    assert "//registry" not in text


def test_the_version_is_the_same_in_all_three_places():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    panel = json.loads((ROOT / "labextension" / "package.json").read_text(encoding="utf-8"))["version"]
    assert project == panel == jupyter_inplace.__version__


def test_jupyterlab_lists_the_extension():
    command = [str(Path(sys.executable).parent / "jupyter"), "labextension", "list"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    listed = re.sub(r"\x1b\[\d*m", "", done.stdout + done.stderr)
    assert re.search(r"^\s*jupyter-inplace v\S+ enabled OK \(python, jupyter-inplace\)$", listed, re.MULTILINE), listed

"""What the documentation says is so: its code runs, its commands end as told, its names and fields exist."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import typing
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from code_blocks import blocks

import jupyter_inplace
from jupyter_inplace.cli import arguments
from jupyter_inplace.magic.options import help_text
from jupyter_inplace.report import data as contract

ROOT = Path(__file__).parents[2]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))}
WORDS = {
    "`verdict`": contract.Verdict,
    "`status` of a task": contract.TaskStatus,
    "`status` of a gradient": contract.GradientStatus,
    "`kind` of an event": contract.EventKind,
    "`kind` of a rewrite": contract.FixKind,
    "`reading` of a rewrite": contract.Reading,
    "`effects` of a write": contract.Effect,
    "`status` of a proof": contract.ProofStatus,
}


def with_code(language):
    return [name for name, text in TEXTS.items() if blocks(text, language)]


@pytest.mark.parametrize("page", with_code("python"))
def test_the_code_of_a_page_runs_from_top_to_bottom(page, shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = 0
    for block in blocks(TEXTS[page], "python"):
        if block.title is not None:
            compile(block.code, block.title, "exec")  # run by the page's commands
            continue
        error = shell.run(block.code).result
        error = error.error_before_exec or error.error_in_exec
        if block.raises is None:
            assert error is None, f"{block.code}\n{error!r}"
        else:
            assert block.raises in str(error)
        ran += 1
    assert ran or page in ("docs/how-to/tests.md", "docs/develop/channel.md")  # their code stands in files


@pytest.mark.parametrize("page", with_code("console"))
def test_the_commands_of_a_page_end_as_told(page, tmp_path):
    for block in blocks(TEXTS[page], "python"):
        if block.title is not None:
            (tmp_path / block.title).write_text(block.code, encoding="utf-8")
    where = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    for block in blocks(TEXTS[page], "console"):
        for line in block.code.splitlines():
            command, _, status = line.removeprefix("$ python ").partition("  # exits with ")
            ended = subprocess.run(
                [sys.executable, *shlex.split(command)],
                cwd=tmp_path, env={**os.environ, "PYTHONPATH": where}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert ended.returncode == int(status or 0), f"{line}\n{ended.stdout}\n{ended.stderr}"


def test_the_tests_that_a_page_shows_pass(tmp_path):
    """Those of the page on rules need the helper that stands beside the rules' own tests."""
    (block,) = (block for block in blocks(TEXTS["docs/develop/rule.md"], "python") if block.title is not None)
    (tmp_path / block.title).write_text(block.code, encoding="utf-8")
    where = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "rewrite")])
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", block.title],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": where}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    assert "2 passed" in ended.stdout


def rows(text, heading):
    """The first cells of the table below a heading."""
    section = re.split(r"^## ", text.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
    return re.findall(r"^\| (`.*?) \| (.*?) \|$", section, re.MULTILINE)


def parts():
    return [name for name in contract.__all__ if dataclasses.is_dataclass(getattr(contract, name))]


@pytest.mark.parametrize("part", parts())
def test_the_fields_of_the_format(part):
    told = [(name.strip("`"), "*if any*" in text) for name, text in rows(TEXTS["docs/report-format.md"], part)]
    fields = dataclasses.fields(getattr(contract, part))
    assert told == [(f.name, bool(f.metadata.get("absent_if_empty"))) for f in fields]


def test_the_words_of_the_format():
    told = {name: tuple(re.findall(r"`(\w+)`", text)) for name, text in rows(TEXTS["docs/report-format.md"], "Words")}
    assert told == {name: typing.get_args(words) for name, words in WORDS.items()}


def test_the_options_of_the_magic():
    option = r"(?<![\w-])(-\w|--[a-z][\w-]+)"
    told = re.findall(r"^\| (`-.*?) \|", TEXTS["docs/magic.md"], re.MULTILINE)
    assert set(re.findall(option, " ".join(told))) == set(re.findall(option, help_text()))


@pytest.mark.parametrize(
    ("command", "parser"),
    [("Run", arguments._run_parser), ("Show", arguments._show_parser), ("Fix", arguments._fix_parser)],
)
def test_the_options_of_the_command_line(command, parser):
    told = " ".join(option for option, _ in rows(TEXTS["docs/command-line.md"], command))
    known = {word for action in parser()._actions for word in action.option_strings}
    found = set(re.findall(r"(?<![\w-])(-\w|--[a-z][\w-]+)", told))
    assert found == known


def test_each_commit_is_checked_by_what_make_test_begins_with():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    for program in re.findall(r"\$\(BIN\)/(ruff \w+|\w+)", lint):
        assert f"entry: {program}" in hooks
    scripts = json.loads((ROOT / "labextension" / "package.json").read_text("utf-8"))["scripts"]
    checks = set(re.findall(r"npm run (\w+)", scripts["check"])) - {"build"}
    assert checks == set(re.findall(r"npm --prefix labextension run --silent (\w+)", hooks))


def test_each_drawing_is_shown_and_has_words_for_who_cannot_see_it():
    drawings = ROOT / "docs" / "drawings"
    shown = [name for text in TEXTS.values() for name in re.findall(r'^--8<-- "(.+)"$', text, re.MULTILINE)]
    assert sorted(shown) == sorted(path.name for path in drawings.iterdir())
    styles = (ROOT / "docs" / "stylesheets" / "drawings.css").read_text("utf-8")
    for name in shown:
        drawing = ET.fromstring((drawings / name).read_text("utf-8"))
        assert drawing.get("role") == "img"
        assert len(drawing.get("aria-label", "").split()) > 8
        classes = {word for part in drawing.iter() for word in part.get("class", "").split()}
        assert all(f".{word}" in styles for word in classes)
        assert not any(part.get(what) for part in drawing.iter() for what in ("fill", "stroke", "style"))


def test_the_reference_has_every_public_name():
    told = set(re.findall(r"^::: [\w.]+\.(\w+)$", TEXTS["docs/reference.md"], re.MULTILINE))
    assert set(jupyter_inplace.__all__) - {"__version__"} <= told
    assert set(parts()) <= told


def test_the_tutorial_leads_through_every_notebook():
    told = re.findall(r"^\| `(examples/\w+\.ipynb)` \|", TEXTS["docs/tutorial.md"], re.MULTILINE)
    assert told == sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("page", [*TEXTS, "CONTRIBUTING.md", "CHANGELOG.md", "README.md"])
def test_the_links_of_a_page_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    links = [
        *re.findall(r"\]\((?!https?:)([^)#]+)", text),
        *re.findall(r'(?:src|srcset|href)="(?!https?:)([^"#]+)"', text),
    ]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", [*TEXTS, "CONTRIBUTING.md", "README.md"])
def test_the_files_and_make_targets_that_a_page_names_exist(page):
    text = (ROOT / page).read_text("utf-8")
    named = re.findall(r"`((?:jupyter_inplace|tests|examples|labextension|benchmarks|tools)/[\w./-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
    made = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"`make (\w[\w-]*)", text)) <= set(made)

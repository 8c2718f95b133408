"""`jupyter-inplace fix`: rewrites of a script, proved, then written."""

from __future__ import annotations

import shutil
import stat
import subprocess

import pytest

from jupyter_inplace.cli import main
from jupyter_inplace.cli.arguments import BadInputError
from jupyter_inplace.cli.fix import _best, _why_none
from jupyter_inplace.cli.source_file import SourceFile
from jupyter_inplace.report import Fix, Report, Verification

BROKEN = """\
#!/usr/bin/env python
# Größe: zwei Aufgaben
import sys

import torch

w = torch.ones(3, requires_grad=True)


def main():
    h = torch.exp(w)
    one = h.sum()
    h.mul_(2)  # twice
    two = (h * 3).sum()
    (one + two).backward()
    print(sys.argv[1:], w.grad.tolist())


if __name__ == "__main__":
    main()
"""

#: d/dw (sum(exp(w)) + sum(2 exp(w) * 3)) at 1
RIGHT = [7 * 2.718281828459045] * 3


def git(folder, *words):
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=folder, check=True, capture_output=True
    )


def test_without_apply_nothing_is_written(terminal):
    terminal.script(BROKEN)
    ended = terminal.python("-m", "jupyter_inplace", "fix", "train.py", "--lr", "1")
    assert ended.status == 1
    assert ended.out.startswith("breaks: backward fails for one")
    assert "-    h.mul_(2)  # twice\n" in ended.out
    assert "RuntimeError: one of the variables needed" in ended.err
    assert ended.err.rstrip().endswith("jupyter-inplace fix --apply train.py")
    assert (terminal.folder / "train.py").read_text() == BROKEN
    assert [p.name for p in terminal.folder.iterdir()] == ["train.py"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is what makes a backup unnecessary")
def test_apply_writes_a_rewrite_that_is_right(terminal):
    path = terminal.folder / "train.py"
    path.write_bytes(BROKEN.replace("\n", "\r\n").encode())
    path.chmod(0o755)
    git(terminal.folder, "init", "-q")
    git(terminal.folder, "add", "train.py")
    git(terminal.folder, "commit", "-qm", "as it was")
    ended = terminal.python("-m", "jupyter_inplace", "fix", "--apply", "train.py", "a", "b")
    assert ended.status == 0
    assert "train.py: " in ended.out
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    written = path.read_bytes()
    assert written.count(b"\n") == written.count(b"\r\n")
    assert written != BROKEN.replace("\n", "\r\n").encode()
    assert "# Größe: zwei Aufgaben" in written.decode()
    assert [p.name for p in terminal.folder.iterdir() if p.name != ".git"] == ["train.py"]  # git has the old one
    cured = terminal.python("train.py", "a", "b")
    assert cured.status == 0
    words, _, numbers = cured.out.partition("] [")
    assert words == "['a', 'b'"
    assert [float(n) for n in numbers.strip("]\n").split(", ")] == pytest.approx(RIGHT)


def test_a_clean_script_and_one_that_cannot_be_parsed(terminal):
    terminal.script("import sys\nprint('no torch here')\nsys.exit(4)\n")
    ended = terminal.python("-m", "jupyter_inplace", "fix", "--apply", "train.py")
    assert (ended.status, ended.out.splitlines()[0]) == (4, "no torch here")
    terminal.script("x = (\n", "bad.py")
    ended = terminal.python("-m", "jupyter_inplace", "fix", "bad.py")
    assert ended.status == 1
    assert ended.err.rstrip().endswith("SyntaxError: '(' was never closed")


@pytest.mark.parametrize(
    ("name", "told"),
    [("none.py", "no script at `none.py`."), ("bytes.py", "is not Python text"), ("folder", "is a folder")],
)
def test_bad_input(name, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text("")
    assert main(["fix", name]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err


# --- which one is written ----------------------------------------------------------------------------------------------


def fix(id, status="passed", reading=None):
    return Fix(
        id=id, kind="clone", title="t", source=str(id), reading=reading, verification=Verification(status=status)
    )


@pytest.mark.parametrize(
    ("fixes", "asked", "chosen"),
    [
        ([], None, None),
        ([fix(0, "failed"), fix(1, "unverified")], None, None),
        ([fix(0, "failed"), fix(1), fix(2)], None, 1),
        ([fix(0, reading="update"), fix(1, reading="copy")], None, None),
        ([fix(0, reading="update"), fix(1, reading="copy")], "copy", 1),
        ([fix(0, "failed", reading="update"), fix(1, reading="copy")], None, 1),
        ([fix(0, reading="copy")], "update", None),
    ],
)
def test_only_what_is_proved_and_meant(fixes, asked, chosen):
    found = _best(Report(fixes=tuple(fixes)), asked)
    assert (None if found is None else found.id) == chosen


def test_why_none():
    assert _why_none(Report()) == "there is no rewrite for it."
    assert _why_none(Report(fixes=(fix(0, "failed"),))) == "no rewrite is proved."
    assert "--reading" in _why_none(Report(fixes=(fix(0, reading="update"), fix(1, reading="copy"))))


# --- the file ----------------------------------------------------------------------------------------------------------


def test_outside_of_git_the_old_text_is_kept(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    (tmp_path / "a.py.orig").write_text("older\n")
    backup = SourceFile(str(path)).replace("x = 2\n")
    assert (path.read_text(), backup.name, backup.read_text()) == ("x = 2\n", "a.py.orig2", "x = 1\n")
    assert (tmp_path / "a.py.orig").read_text() == "older\n"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is what makes a backup unnecessary")
def test_git_counts_only_where_it_has_this_very_text(tmp_path):
    git(tmp_path, "init", "-q")
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    assert SourceFile(str(path)).replace("x = 2\n") is not None  # not added
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-qm", "two")
    assert SourceFile(str(path)).replace("x = 3\n") is None
    assert SourceFile(str(path)).replace("x = 4\n") is not None  # changed since
    assert path.read_text() == "x = 4\n"


def test_a_file_that_was_changed_meanwhile_is_left_alone(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    file = SourceFile(str(path))
    path.write_text("x = 5\n")
    with pytest.raises(BadInputError, match="has been changed since it was run; nothing was written"):
        file.replace("x = 2\n")
    assert path.read_text() == "x = 5\n"


def test_encoding_link_and_mode_stay(tmp_path):
    path = tmp_path / "a.py"
    path.write_bytes("# -*- coding: latin-1 -*-\nx = 'ä'\n".encode("latin-1"))
    path.chmod(0o640)
    link = tmp_path / "link.py"
    link.symlink_to(path)
    file = SourceFile(str(link))
    file.replace(file.text.replace("x", "y"))
    assert path.read_bytes() == "# -*- coding: latin-1 -*-\ny = 'ä'\n".encode("latin-1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert link.is_symlink()


def test_a_write_that_fails_leaves_the_old_text_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    file = SourceFile(str(path))

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    monkeypatch.setattr(SourceFile, "_is_in_git", lambda self: True)
    with pytest.raises(BadInputError, match="cannot be written \\(No space left on device\\)"):
        file.replace("x = 2\n")
    assert path.read_text() == "x = 1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.py"]

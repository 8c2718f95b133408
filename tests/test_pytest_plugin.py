"""The pytest plugin, in pytest processes of its own over sample test files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

STEP = """\
import torch

def step(bad):
    w = torch.ones(3, requires_grad=True)
    h = torch.exp(w)
    loss = h.sum()
    if bad:
        h.data.mul_(2)
    loss.backward()
    return w.grad
"""

TESTS = """\
import unittest
import pytest
import torch
from work import step

def test_clean():
    step(False)

def test_bad():
    step(True)

@pytest.mark.parametrize("i", range(3))
def test_some(i):
    step(i)

def test_expects_an_error():
    w = torch.ones(3, requires_grad=True)
    h = torch.exp(w)
    h.mul_(2)
    with pytest.raises(RuntimeError):
        h.sum().backward()

def test_fails_by_itself():
    step(True)
    assert 1 == 2

def test_skips():
    step(True)
    pytest.skip("not today")

@pytest.mark.xfail(strict=True)
def test_known():
    step(True)

class TestOld(unittest.TestCase):
    def test_old(self):
        step(True)

    def test_old_fails(self):
        step(True)
        self.assertEqual(1, 2)

    def test_old_clean(self):
        step(False)

    def test_sub(self):
        for i in range(2):
            with self.subTest(i=i):
                step(i)
"""

ASKED = """\
import pytest
import torch
from work import step

def test_by_fixture(autograd_watch):
    step(True)

def test_judges_itself(autograd_watch):
    step(True)
    report = autograd_watch.stop()
    assert report.verdict == "corrupts"
    assert [t.name for t in report.tasks] == ["loss"]

@pytest.mark.autograd_watch
def test_by_marker():
    step(True)

@pytest.mark.autograd_watch(fail_on="breaks")
def test_lenient():
    step(True)

@pytest.mark.autograd_watch("loss", fail_on="mixes", gradients=True)
def test_all_words(autograd_watch):
    step(False)
    report = autograd_watch.stop()
    assert report.gradients[0].norm_as_run == pytest.approx(3 ** 0.5 * torch.e)

@pytest.mark.autograd_watch(fail_on="off")
def test_off(autograd_watch):
    assert autograd_watch is None
    step(True)

@pytest.mark.autograd_watch(fail_on="never")
def test_wrong_level():
    pass

@pytest.mark.autograd_watch(fingerprints="all")
def test_wrong_word():
    pass

def test_unasked():
    step(True)

@pytest.mark.usefixtures("autograd_watch")
class TestAll:
    def test_in_class(self):
        step(True)
"""


class Pytest:
    def __init__(self, folder):
        self.folder = folder

    def run(self, *words):
        junit = self.folder / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={junit}", *words]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
        ended = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        self.out = ended.stdout + ended.stderr
        self.outcomes = {}
        for case in ET.parse(junit).iter("testcase") if junit.exists() else ():
            kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
            self.outcomes[case.get("name")] = (kinds or ["passed"])[0]
        return ended.returncode


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    def folder(**files):
        path = tmp_path_factory.mktemp("suite")
        (path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
        (path / "work.py").write_text(STEP)
        for name, text in files.items():
            (path / f"{name}.py").write_text(text)
        return Pytest(path)

    return folder


def sites(out):
    """The rows of the terminal summary."""
    return re.findall(r"^(\w+) +(\S+:\d+) +(\S.*?) +(\d+) tests?(?:, (\d+) times)?$", out, re.MULTILINE)


EXPECTED = {
    "test_clean": "passed", "test_bad": "failure", "test_some[0]": "passed", "test_some[1]": "failure", "test_some[2]": "failure",
    "test_expects_an_error": "failure", "test_fails_by_itself": "failure", "test_skips": "skipped", "test_known": "skipped",
    "test_old": "failure", "test_old_fails": "failure", "test_old_clean": "passed", "test_sub": "failure",
}  # fmt: skip


def test_every_test_is_watched_and_the_sites_are_listed(make):
    suite = make(test_all=TESTS)
    assert suite.run("--autograd-watch", "test_all.py") == 1  # the folder or file after the flag is none of its words
    assert suite.outcomes == EXPECTED
    assert sites(suite.out) == [
        ("corrupts", "work.py:8", "h.data.mul_(2)", "9", "9"),
        ("breaks", "test_all.py:19", "h.mul_(2)", "1", ""),
    ]
    assert "corrupts: the gradient is wrong for loss and nothing raises: h.data.mul_(2) (work.py:8)" in suite.out
    # a test that fails by itself keeps its own failure, with the report beside it
    assert re.search(r"test_all\.py:\d+: AssertionError\n-+ Captured autograd_watch call -+\ncorrupts: ", suite.out)
    assert "E       AssertionError: 1 != 2" in suite.out


def test_the_same_with_xdist_and_coverage_at_another_level(make):
    suite = make(test_all=TESTS)
    assert suite.run("--autograd-watch=breaks", "-n", "2", "--cov=work", "--cov-report=term") == 1
    lenient = dict.fromkeys(("test_bad", "test_some[1]", "test_some[2]", "test_old", "test_sub"), "passed")
    assert suite.outcomes == {**EXPECTED, **lenient, "test_known": "failure"}  # xfail(strict) that passes
    assert sites(suite.out)[0] == ("corrupts", "work.py:8", "h.data.mul_(2)", "9", "9")
    assert re.search(r"^work\.py +\d+ +0 +100%", suite.out, re.MULTILINE)


def test_fixture_and_marker_watch_single_tests(make):
    suite = make(test_asked=ASKED)
    assert suite.run() == 1
    assert suite.outcomes == {
        "test_by_fixture": "failure", "test_judges_itself": "passed", "test_by_marker": "failure", "test_lenient": "passed",
        "test_all_words": "passed", "test_off": "passed", "test_wrong_level": "failure", "test_wrong_word": "failure",
        "test_unasked": "passed", "test_in_class": "failure",
    }  # fmt: skip
    assert (
        "marker autograd_watch: fail_on is one of off, rejected, breaks, corrupts, cuts, unknown, mixes, not 'never'"
        in suite.out
    )
    assert "marker autograd_watch: no such word `fingerprints`" in suite.out
    assert sites(suite.out) == [("corrupts", "work.py:8", "h.data.mul_(2)", "4", "4")]


def test_a_clean_suite_without_torch_stays_without_it(make):
    suite = make(test_none="import sys\n\ndef test_none():\n    assert 'torch' not in sys.modules\n")
    (suite.folder / "pytest.ini").write_text("[pytest]\nautograd_watch = cuts\n")
    assert suite.run() == 0
    assert "autograd watch: 1 test watched, no write harms a gradient" in suite.out


def test_bad_words(make):
    suite = make(test_none="def test_none(): pass\n")
    assert suite.run("--autograd-watch=never") == 4
    assert "'never'" in suite.out
    (suite.folder / "pytest.ini").write_text("[pytest]\nautograd_watch = never\n")
    assert suite.run() == 4
    assert (
        "ini option autograd_watch: one of rejected, breaks, corrupts, cuts, unknown, mixes, not 'never'" in suite.out
    )


def test_the_flag_is_explained(make):
    suite = make()
    assert suite.run("--help") == 0
    assert suite.out.count("--autograd-watch") == 1


OPEN = """\
import threading
import torch

def test_open():
    w = torch.ones(3, requires_grad=True)
    h = torch.exp(w)
    loss = h.sum()
    h.data.mul_(2)
    loss.backward()

def test_clean():
    torch.ones(3, requires_grad=True).exp().sum().backward()
"""
MARKED = "import pytest\npytestmark = pytest.mark.autograd_watch(gradients=False)\n"
WHY = "what an overwritten saved tensor does to the gradients was not worked out"


def test_tests_of_which_it_is_not_known_are_counted_apart(make):
    suite = make(test_open=MARKED + OPEN)
    assert suite.run("--autograd-watch") == 0
    assert "autograd watch: 2 tests watched, no write is known to harm a gradient, 1 unknown" in suite.out
    assert f"  1 test: {WHY}" in suite.out
    assert suite.run("--autograd-watch=unknown") == 1
    assert suite.outcomes == {"test_open": "failure", "test_clean": "passed"}
    assert "unknown: it is not known whether h.data.mul_(2) (test_open.py:10)" in suite.out


@pytest.mark.faulty
def test_a_test_that_could_not_be_watched_is_not_counted_as_watched(make):
    suite = make(test_open=OPEN)
    broken = (
        "from jupyter_inplace.record.session import Session\ndef install(self):\n    raise ValueError('new torch')\n"
    )
    (suite.folder / "conftest.py").write_text(broken + "Session.install = install\n")
    assert suite.run("--autograd-watch") == 0
    assert "autograd watch: 0 tests watched, no write harms a gradient, 2 could not be watched" in suite.out
    assert "  2 tests: not watched: ValueError: new torch" in suite.out
    assert suite.run("--autograd-watch=unknown", "-n", "1") == 1
    assert suite.outcomes == {"test_open": "failure", "test_clean": "failure"}

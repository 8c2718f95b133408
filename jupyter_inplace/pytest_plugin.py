"""``pytest --autograd-watch`` watches every test; a harmful write fails the test, with the report as its message.

Tests of which it is not known whether a gradient was harmed, and those that could not be watched, are counted apart;
``--autograd-watch=unknown`` fails them.

Without the flag, the fixture or the marker ``autograd_watch`` puts one test under the watch. The watch covers the test
itself, not the set-up of its fixtures. Torch is not imported for it: a test that never uses torch is left as it is.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_inplace.report.data import HARMFUL, VERDICTS, Report, Verdict, reaches

if TYPE_CHECKING:
    from jupyter_inplace.watch import watch
    from jupyter_inplace.watch_on_arrival import WatchOnArrival

NAME = "autograd_watch"
#: The verdicts that the flag, the ini option and the marker accept.
LEVELS = VERDICTS[:-1]
#: Fails a test for every write that harms a gradient.
DEFAULT: Verdict = HARMFUL[-1]
_MARKER_WORDS = ("fail_on", "fingerprint", "gradients")
_MOST_SITES = 30
_ENDINGS = (pytest.skip.Exception, pytest.fail.Exception, pytest.xfail.Exception, pytest.exit.Exception)

_MARKER = (
    f"{NAME}(*tasks, fail_on={DEFAULT!r}, fingerprint='exported', gradients=None): "
    "watch this test for in-place writes that harm gradients; fail_on='off' leaves it unwatched."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The flag and the ini option."""
    group = parser.getgroup("autograd watch", "in-place writes that harm gradients (jupyter_inplace)")
    said = f"watch every test; fail it if the verdict is this or worse: {', '.join(LEVELS)} (default: {DEFAULT})"
    group.addoption("--autograd-watch", dest=NAME, action="store_const", const=DEFAULT, help=said)
    for level in LEVELS:
        # One flag for each verdict: with nargs="?", `--autograd-watch tests/` would take the folder for a verdict.
        group.addoption(
            f"--autograd-watch={level}", dest=NAME, action="store_const", const=level, help=argparse.SUPPRESS
        )
    parser.addini(NAME, f"watch every test: one of {', '.join(LEVELS)}", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; start the list of harmful sites."""
    config.addinivalue_line("markers", _MARKER)
    level = config.getini(NAME)
    if level and level not in LEVELS:
        raise pytest.UsageError(f"ini option {NAME}: one of {', '.join(LEVELS)}, not {level!r}")
    config.stash[_FOUND] = Found()


# --- one test -----------------------------------------------------------------------------------------------------


@dataclass
class Wanted:
    """How to watch one test."""

    fail_on: Verdict
    tasks: tuple[str, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)


@dataclass
class Watched:
    """A test that is watched."""

    wanted: Wanted
    watch: watch
    arrival: WatchOnArrival


def _wanted(item: pytest.Item) -> Wanted | None:
    """How to watch a test; None if nobody asked for it."""
    config = item.config
    everywhere = config.getoption(NAME) or config.getini(NAME) or None
    marker = item.get_closest_marker(NAME)
    if marker is None:
        if everywhere is None and NAME not in getattr(item, "fixturenames", ()):
            return None
        return Wanted(everywhere or DEFAULT)
    keywords = dict(marker.kwargs)
    unknown = [word for word in keywords if word not in _MARKER_WORDS]
    if unknown:
        pytest.fail(f"marker {NAME}: no such word `{unknown[0]}`; there are {', '.join(_MARKER_WORDS)}", pytrace=False)
    fail_on = keywords.pop("fail_on", everywhere or DEFAULT)
    if fail_on == "off":
        return None
    if fail_on not in LEVELS:
        pytest.fail(f"marker {NAME}: fail_on is one of off, {', '.join(LEVELS)}, not {fail_on!r}", pytrace=False)
    return Wanted(fail_on, marker.args, keywords)


def _make(item: pytest.Item) -> Watched | None:
    """The watch of a test, made once: the fixture returns it, `pytest_runtest_call` starts it."""
    if item.stash.get(_WATCHED, None) is None:
        wanted = _wanted(item)
        if wanted is None:
            return None
        from jupyter_inplace.watch import watch
        from jupyter_inplace.watch_on_arrival import WatchOnArrival

        names = getattr(getattr(item, "module", None), "__dict__", {})
        try:
            made = watch(*wanted.tasks, namespace=lambda: names, **wanted.keywords)
        except ValueError as error:
            pytest.fail(f"marker {NAME}: {error}", pytrace=False)
        item.stash[_WATCHED] = Watched(wanted, made, WatchOnArrival(made))
    return item.stash[_WATCHED]


@pytest.fixture
def autograd_watch(request: pytest.FixtureRequest) -> watch | None:
    """The watch over this test. It begins with the code of the test itself.

    `autograd_watch.stop()` ends it early and returns the report; the plugin then leaves the judgement to the test. None if the
    marker says ``fail_on="off"``.
    """
    watched = _make(request.node)
    return None if watched is None else watched.watch


@pytest.hookimpl(wrapper=True, trylast=True)  # innermost: other plugins are not watched
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Run the code of the test under the watch."""
    watched = _make(item)
    if watched is None:
        return (yield)
    watched.arrival.begin()
    try:
        result = yield
    except BaseException as error:
        _tell(item, watched, error)
        raise
    report = _tell(item, watched, _unittest_error(item))
    if report is not None and _met(report, watched.wanted) and _unittest_error(item) is None:
        pytest.fail(str(report), pytrace=False)
    return result


def _tell(item: pytest.Item, watched: Watched, error: BaseException | None) -> Report | None:
    """End the watch; returns the report, or None if the test has stopped the watch itself."""
    by_hand = watched.watch.report is not None
    report = watched.arrival.end(None if isinstance(error, _ENDINGS) else error)
    if by_hand:
        return None
    item.stash[_REPORT] = (report, watched.arrival.watched or report.nothing_ran)
    told = report.verdict in (*HARMFUL, "unknown")
    if error is not None and not isinstance(error, pytest.skip.Exception) and told:
        item.add_report_section("call", NAME, str(report))
    return report


def _met(report: Report, wanted: Wanted) -> bool:
    return reaches(report.verdict, wanted.fail_on)


def _unittest_error(item: pytest.Item) -> BaseException | None:
    """What a ``unittest`` test raised: unittest catches it, and pytest keeps it for its own report."""
    found = getattr(item, "_excinfo", None)
    return found[0].value if found else None


# --- the sites of all tests ---------------------------------------------------------------------------------------


class Found:
    """The harmful sites of a session, by test."""

    def __init__(self) -> None:
        self.tests = 0
        #: By reason, the tests of which nobody can tell whether a gradient was harmed.
        self.unknown: dict[str, set[str]] = {}
        #: By reason, the tests that could not be watched.
        self.unwatched: dict[str, set[str]] = {}
        self.sites: dict[tuple[Any, ...], tuple[set[str], list[int]]] = {}

    def add(self, test: str, rows: list[list[Any]], reasons: list[str], *, watched: bool) -> None:
        """Count one test.

        :param rows: of its harmful sites: verdict, file, line, text, count.
        :param reasons: for which more may have been harmed.
        """
        self.tests += watched
        for reason in reasons:
            (self.unknown if watched else self.unwatched).setdefault(reason, set()).add(test)
        for verdict, file, line, text, count in rows:
            tests, counts = self.sites.setdefault((verdict, file, line, text), (set(), []))
            tests.add(test)
            counts.append(count)

    def summary(self) -> str:
        """How many tests were watched, of how many it is not known, and how many could not be watched."""
        unknown = len(set().union(*self.unknown.values()))
        parts = [f"{_counted(self.tests, 'test')} watched"]
        if not self.sites:
            parts.append("no write harms a gradient" if not unknown else "no write is known to harm a gradient")
        if unknown:
            parts.append(f"{unknown:,} unknown")
        if self.unwatched:
            parts.append(f"{len(set().union(*self.unwatched.values())):,} could not be watched")
        return ", ".join(parts)

    def lines(self, root: Path) -> list[str]:
        """One line for each site, those found in most tests first."""
        found = [
            ((verdict, f"{_short(file, root)}:{line}" if line else file, text), len(tests), sum(counts))
            for (verdict, file, line, text), (tests, counts) in self.sites.items()
        ]
        found.sort(key=lambda row: (-row[1], -row[2], VERDICTS.index(row[0][0]), row[0][1]))
        shown = found[:_MOST_SITES]
        widths = [max((len(texts[i]) for texts, _, _ in shown), default=0) for i in range(3)]
        lines = [
            "  ".join(f"{text:<{width}}" for text, width in zip(texts, widths, strict=True))
            + f"  {_counted(tests, 'test')}{f', {count:,} times' if count > 1 else ''}"
            for texts, tests, count in shown
        ]
        return lines + ([f"and {len(found) - len(shown):,} more"] if len(found) > len(shown) else [])


_WATCHED = pytest.StashKey[Watched | None]()
_REPORT = pytest.StashKey[tuple[Report, bool]]()
_FOUND = pytest.StashKey[Found]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Add the harmful sites to pytest's own report, which xdist sends from its workers to the terminal."""
    made = yield
    if call.when == "call" and (found := item.stash.get(_REPORT, None)) is not None:
        report, watched = found
        made.autograd_watch = [_rows(report), _reasons(report), watched]
        del item.stash[_REPORT]
    return made


def _rows(report: Report) -> list[list[Any]]:
    from jupyter_inplace.report.words import write_expression

    return [
        [m.verdict, m.site.file if m.site else "", m.site.line if m.site else None, write_expression(m), m.count]
        for m in report.mutations
        if m.verdict in HARMFUL
    ]


def _reasons(report: Report) -> list[str]:
    if report.verdict == "unknown" and not report.unknown_because:
        return [report.summary]
    return list(report.unknown_because)


class _Collector:
    """Collects the sites of all tests in the process with the terminal: the only one, or xdist's controller."""

    def __init__(self, found: Found) -> None:
        self._found = found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test is over."""
        told = getattr(report, NAME, None)
        if told is not None:
            rows, reasons, watched = told
            self._found.add(report.nodeid, rows, reasons, watched=watched)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start to collect."""
    session.config.pluginmanager.register(_Collector(session.config.stash[_FOUND]), "autograd-watch-collector")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the sites found, the most frequent ones first."""
    found = config.stash[_FOUND]
    if not found.tests and not found.unwatched:
        return
    if not found.sites:
        terminalreporter.line(f"autograd watch: {found.summary()}")
        _tell_open(terminalreporter, found)
        return
    sites, verb = len(found.sites), "harms" if len(found.sites) == 1 else "harm"
    terminalreporter.section(f"autograd watch: {_counted(sites, 'site')} {verb} gradients")
    for line in found.lines(config.invocation_params.dir):
        terminalreporter.line(line)
    if found.unknown or found.unwatched:
        terminalreporter.line(f"autograd watch: {found.summary()}")
        _tell_open(terminalreporter, found)


def _tell_open(terminalreporter: Any, found: Found) -> None:
    """Why it is not known of some tests, one line a reason, the most frequent first."""
    reasons = [*found.unwatched.items(), *found.unknown.items()]
    for reason, tests in sorted(reasons, key=lambda item: -len(item[1]))[:_MOST_SITES]:
        terminalreporter.line(f"  {_counted(len(tests), 'test')}: {reason}")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _short(file: str, root: Path) -> str:
    try:
        return min(os.path.relpath(file, root), file, key=len)
    except ValueError:  # on another drive
        return file

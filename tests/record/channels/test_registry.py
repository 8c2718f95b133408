"""Every channel has its file, its line in the registry, its cells, and an explanation of its own exactly if the line says so."""

from __future__ import annotations

from pathlib import Path

from jupyter_inplace.record.channels.channel import Channel
from jupyter_inplace.record.channels.registry import CHANNELS
from jupyter_inplace.record.session import Session

ROOT = Path(__file__).parents[3]


def files(folder):
    return {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}


def module_of(line):
    return line.channel.__module__.rpartition(".")[2]


def test_each_file_is_a_channel_with_one_line():
    lines = [module_of(line) for line in CHANNELS]
    assert sorted(lines) == sorted(files("jupyter_inplace/record/channels") - {"channel", "registry"})
    assert all(issubclass(line.channel, Channel) for line in CHANNELS)


def test_the_line_says_where_a_channel_is_explained():
    own = {module_of(line) for line in CHANNELS if line.explained}
    assert own == files("jupyter_inplace/explain/channels")


def test_each_channel_has_its_cells():
    cells = {name.removeprefix("test_channel_") for name in files("tests/channels")}
    assert {module_of(line) for line in CHANNELS} <= cells


def test_a_new_session_asks_no_channel_but_those_that_stand_by():
    session = Session()
    assert session.following == ()
    assert session.reading == ()
    assert {type(channel) for channel in session.asked} == {line.channel for line in CHANNELS if line.channel.standing}

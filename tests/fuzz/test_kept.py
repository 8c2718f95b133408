"""Programs that once failed, each reduced to its smallest: they stay right."""

from __future__ import annotations

from pathlib import Path

import pytest
from against import examine
from random_programs.text import load

_FILES = sorted((Path(__file__).parent / "kept").glob("*.txt"))


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)
def test_kept_program(file):
    result = examine(load(file.read_text(encoding="utf-8")))
    assert result.judgement.harmful is not None, result.judgement
    assert not result.faults, (result.judgement, result.said)

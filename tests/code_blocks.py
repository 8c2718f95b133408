"""The code blocks of a Markdown text."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BLOCK = re.compile(
    r"^(?:<!-- raises: (?P<raises>.*?) -->\n)?```(?P<language>\w+)(?: title=\"(?P<title>.*?)\")?\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: `title` is the file that it is to stand in, `raises` a part of the error that it ends in."""

    language: str
    code: str
    title: str | None = None
    raises: str | None = None


def blocks(text, language):
    """The fenced blocks of one language, in order."""
    found = (Block(m["language"], m["code"], m["title"], m["raises"]) for m in _BLOCK.finditer(text))
    return [block for block in found if block.language == language]

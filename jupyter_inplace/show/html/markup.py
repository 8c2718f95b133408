"""Elements of HTML and SVG whose texts and attributes are escaped by construction."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias


class Markup(str):
    """Text that is markup already. Only this module may turn other text into markup."""

    __slots__ = ()


Child: TypeAlias = "str | Markup | Iterable[Child] | None"

_VOID = {"br", "wbr", "meta", "path", "circle", "line", "rect"}


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """An element. Strings are escaped; `data_ji_id=3` gives ``data-ji-id="3"``; attributes that are None are left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not children:
        return Markup(f"<{name}{written}{'' if name in ('br', 'wbr', 'meta') else '/'}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Child) -> Markup:
    """Concatenate pieces, and escape those that are not markup."""
    if children is None:
        return Markup("")
    if isinstance(children, Markup):
        return children
    if isinstance(children, str):
        return Markup(html.escape(children))
    return Markup("".join(join(child) for child in children))


def name(text: str) -> Markup:
    """A dotted name as code, with possible line breaks after its dots."""
    return tag("code", [[tag("wbr") if i else None, part] for i, part in enumerate(re.split(r"(?<=\.)", text))])


def _number(value: str | float) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)

"""Which scalars are inside graphs that have already run: `loss` of `(loss / 2).backward(retain_graph=True)`.

A retained graph can run again, but a scalar inside it does not wait for its first backward.
"""

from __future__ import annotations

from collections.abc import Iterable

from jupyter_inplace.explain.graph.graph import Edge, node_key, scalar_output

_PER_CALL = 256
_KEPT = 16_384

Key = tuple[str, int]


class RanScalars:
    """The keys of the newest such nodes, which are not kept alive."""

    def __init__(self) -> None:
        self._keys: dict[Key, None] = {}

    def add(self, roots: Iterable[Edge]) -> None:
        """The graph of these roots is about to run, and will be retained."""
        todo = list(roots)
        seen: set[Key] = set()
        while todo and len(seen) < _PER_CALL:
            node, output = todo.pop()
            if node is None or (key := node_key(node)) in seen or not scalar_output(node, output):
                continue
            seen.add(key)
            todo.extend(node.next_functions)
        self._keys.update(dict.fromkeys(seen))
        while len(self._keys) > _KEPT:
            del self._keys[next(iter(self._keys))]

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

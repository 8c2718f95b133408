"""The order in which the engine runs the nodes of one backward call on one thread.

Torch keeps the nodes that are ready in a heap by sequence number, leaves first. A node is ready when all nodes that send it a
gradient have run. Nodes with the same number run in the order in which they became ready.
"""

from __future__ import annotations

import heapq

from jupyter_inplace.explain.graph.graph import Graph, Node


def run_order(graph: Graph, roots: list[Node], targets: list[Node]) -> dict[Node, int]:
    """The turn of each node that a backward from `roots` to `targets` runs: 0 is the first."""
    useful = graph.bits({graph.position[node]: 1 for node in targets if node in graph.position})
    waiting = graph.senders(roots, useful)
    ready: list[tuple[int, int, Node]] = []
    pushed = 0
    for node in dict.fromkeys(roots):
        if node in graph.position and useful[graph.position[node]] and not waiting.get(node):
            heapq.heappush(ready, (-node._sequence_nr(), pushed, node))
            pushed += 1
    turns: dict[Node, int] = {}
    while ready:
        _, _, node = heapq.heappop(ready)
        turns[node] = len(turns)
        for child, _ in graph.next[graph.position[node]]:
            if child in waiting:
                waiting[child] -= 1
                if not waiting[child]:
                    heapq.heappush(ready, (-child._sequence_nr(), pushed, child))
                    pushed += 1
    return turns

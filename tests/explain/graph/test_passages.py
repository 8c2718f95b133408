"""Who passes where, against reachability by brute force over torch's own edges."""

from __future__ import annotations

import pytest
import torch

from jupyter_inplace.explain.graph.graph import Graph
from jupyter_inplace.explain.graph.passages import Passages


def _reachable(node):
    found, stack = {node}, [node]
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None and child not in found:
                found.add(child)
                stack.append(child)
    return found


def _random_program(seed):
    generator = torch.Generator().manual_seed(seed)

    def pick(items):
        return items[int(torch.randint(len(items), (1,), generator=generator))]

    leaves = [torch.ones(2, requires_grad=True) for _ in range(4)]
    values = list(leaves)
    for _ in range(20):
        values.append(pick([lambda a, b: a * b, lambda a, _: a.exp(), lambda a, b: a + b])(pick(values), pick(values)))
    inner = [v for v in values if v.grad_fn is not None]
    return leaves, [pick(inner).sum() for _ in range(3)]


@pytest.mark.parametrize("seed", range(8))
def test_against_brute_force(seed):
    leaves, losses = _random_program(seed)
    graph = Graph([loss.grad_fn for loss in losses])
    nodes = {
        graph.nodes[i]: next(k for k, leaf in enumerate(leaves) if graph.nodes[i].variable is leaf)
        for i in graph.leaves
    }
    targets = {(node, 0): f"w{k}" for node, k in nodes.items()}
    starts = [(f"loss{i}", loss.grad_fn) for i, loss in enumerate(losses)]
    passages = Passages(graph, starts, targets)
    for node in graph.nodes:
        there = _reachable(node)
        assert set(passages.reached(node).values()) == {name for (leaf, _), name in targets.items() if leaf in there}
        assert passages.behind(node) == {
            name for (leaf, _), name in targets.items() if leaf in there and leaf is not node
        }
        assert passages.tasks(node) == [task for task, start in starts if node in _reachable(start)]


def test_a_task_of_several_parts_is_named_once_and_nodes_of_other_graphs_are_nobody_s():
    w = torch.ones(2, requires_grad=True)
    a, b, other = w.exp(), w.sin(), w.cos()
    graph = Graph([a.grad_fn, b.grad_fn])
    targets = {(graph.nodes[graph.leaves[0]], 0): "w"}
    passages = Passages(graph, [("loss", a.grad_fn), ("loss", b.grad_fn), ("else", other.grad_fn)], targets)
    assert passages.tasks(graph.nodes[graph.leaves[0]]) == ["loss"]
    assert passages.tasks(other.grad_fn) == []
    assert passages.reached(other.grad_fn) == {}

"""What a backward call computes gradients of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from jupyter_inplace.explain.graph.graph import Edge, Graph
from jupyter_inplace.explain.names.names import Names
from jupyter_inplace.record.base.torch_private import storage_id


def leaf_targets(graph: Graph, inputs: Iterable[Any], names: Names) -> dict[Edge, str]:
    """What a backward call computes gradients of, as edge -> name: its `inputs`, or else every leaf that it reaches."""
    leaves = [graph.nodes[i] for i in graph.leaves]
    found: list[tuple[Edge, str]] = []
    given = list(inputs)
    for i, item in enumerate(given):
        if not isinstance(item, torch.Tensor):
            found.append(((item[0], item[1]), f"input{i}"))
            continue
        # Without get_gradient_edge, which makes a view of a leaf: some layouts do not support views.
        node = item.grad_fn or next((node for node in leaves if node.variable is item), None)
        if node is not None:
            found.append(((node, item.output_nr), names.of_memory(item) or f"input{i}"))
    if not given:
        for node in leaves:
            leaf = node.variable
            found.append(((node, 0), names.of_memory(leaf) or f"t{storage_id(leaf) % 1000}"))
    targets: dict[Edge, str] = {}
    used: set[str] = set()
    for edge, name in found:
        if edge not in targets:
            while name in used:
                name += "'"
            used.add(name)
            targets[edge] = name
    return targets

"""The list of known differences is no longer than what the tests prove."""

from __future__ import annotations

import ast
from pathlib import Path

import torch
from known_differences import KNOWN, RENAMED_NODES
from sameness import EmptyMode

USES = {
    keyword.value.value
    for file in Path(__file__).parent.glob("test_*.py")
    for node in ast.walk(ast.parse(file.read_text()))
    if isinstance(node, ast.Call)
    for keyword in node.keywords
    if keyword.arg == "known" and isinstance(keyword.value, ast.Constant)
}


def test_every_entry_is_proved_by_some_program():
    assert USES == set(KNOWN)


def test_an_empty_mode_renames_a_node():
    x = torch.ones(2, 3, requires_grad=True)
    plain = x.t().reshape(3, 1, 2)
    with EmptyMode():
        under_a_mode = x.t().reshape(3, 1, 2)
    assert RENAMED_NODES[plain.grad_fn.name()] == under_a_mode.grad_fn.name()

"""The rewrite rules, one per file. Each takes a `WriteSyntax` and yields `Proposal`s, which are proved later by running them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from jupyter_inplace.rewrite.rules.clone import (
    alias,
    argument,
    clone_save,
    clone_write,
    gradients,
    loop_variable,
    pieces,
    slots,
    state,
    views,
)
from jupyter_inplace.rewrite.rules.no_grad import no_grad, no_grad_block
from jupyter_inplace.rewrite.rules.out_of_place import caller, custom_function, modules, out_of_place
from jupyter_inplace.rewrite.rules.preserve import preserve
from jupyter_inplace.rewrite.rules.reorder import early_backward, hoist, reorder
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["RULES"]

Rule = Callable[[WriteSyntax], Iterator[Proposal]]

#: Every rule for one write. Their order matters only between proposals of equal rank.
RULES: tuple[Rule, ...] = (
    modules.propose,
    custom_function.propose,
    pieces.propose,
    hoist.propose,
    gradients.propose,
    no_grad.propose,
    loop_variable.propose,
    slots.propose,
    alias.propose,
    out_of_place.propose,
    no_grad_block.propose,
    caller.propose,
    views.propose,
    clone_write.propose,
    reorder.propose,
    early_backward.propose,
    state.propose,
    clone_save.propose,
    argument.propose,
    preserve.propose,
)

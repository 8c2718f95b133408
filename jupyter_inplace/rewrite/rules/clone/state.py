"""Run a module on copies of its parameters: ``D(fake)`` becomes ``functional_call(D, {...p.clone()...}, (fake,))``.

The optimizer then steps the parameters themselves, the graph keeps the copies, and the gradients still reach the
parameters, since ``clone`` is differentiable. This also protects running statistics that an evaluation saved.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from jupyter_inplace.rewrite.syntax.code import Code
from jupyter_inplace.rewrite.syntax.edit import Edit
from jupyter_inplace.rewrite.syntax.saves import saves_state, saving_nodes
from jupyter_inplace.rewrite.syntax.write import Proposal, WriteSyntax

__all__ = ["propose"]


def propose(write: WriteSyntax) -> Iterator[Proposal]:
    """Run the module that saved its own parameters or buffers on copies of them."""
    code = write.code
    torch = code.torch
    every: list[Edit] = []
    seen: set[int] = set()
    for node, conflict in saving_nodes(write):
        for call in code.within(node, cst.Call):
            path = code.get(call.func)
            if id(call) in seen or not saves_state(code, call, conflict) or any(a.star == "**" for a in call.args):
                continue
            seen.add(id(call))
            running = "running" in f"{conflict.saved_as} {conflict.tensor}"
            edit = code.replace(call, _functional(code, call, path, torch, running=running))
            every.append(edit)
            title = f"{path} runs on copies of its {'buffers' if running else 'parameters'} (line {code.line(call)})"
            yield Proposal("clone", title, (edit,), 32, write.reading)
    if len(every) > 1:
        title = "all modules that saved parameters run on copies of them"
        yield Proposal("clone", title, tuple(every), 31, write.reading)


def _functional(code: Code, call: cst.Call, path: str, torch: str, *, running: bool) -> str:
    name, value = code.fresh("name"), code.fresh("p")
    source = f"{path}.named_buffers()" if running else f"{path}.named_parameters()"
    given = [a for a in call.args if a.keyword is None]
    named = [a for a in call.args if a.keyword is not None]
    args = ", ".join(("*" if a.star else "") + code.get(a.value) for a in given if a.star != "**")
    args = f"({args},)" if args else "()"
    text = f"{torch}.func.functional_call({path}, {{{name}: {value}.clone() for {name}, {value} in {source}}}, {args}"
    if named:
        items = ", ".join(f'"{a.keyword.value}": {code.get(a.value)}' for a in named if a.keyword is not None)
        text += f", {{{items}}}"
    return text + ")"

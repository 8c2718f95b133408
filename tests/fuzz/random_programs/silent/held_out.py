"""Two kinds of write kept aside: no default run makes them, and no detector was written with them at hand.

They were chosen before the detectors were changed. What the first run over them finds is reported, whatever it is.
"""

from __future__ import annotations

from random_programs.draft import Draft, Kind
from random_programs.graphs import begin, grow, make, save
from random_programs.places import after_saving, backward, losses, rounds

_ON_FLAT = (
    "flat.mul_({k})", "flat *= {k}", "flat[1:].mul_({k})", "flat.copy_(torch.randn(flat.shape))", "flat.neg_()", "flat.sub_(torch.sign(flat) * 0.3)", "flat.clamp_(-0.2, 0.2)",
    "flat.view(-1)[:] = torch.linspace(-1.0, 1.0, flat.numel())", "torch.mul(flat, {k}, out=flat)", "flat.lerp_(torch.ones_like(flat), 0.5)",
)  # fmt: skip


def _flat_vector(d: Draft) -> None:
    """Leaves that are views of one flat vector: the vector is written, and their versions do not move."""
    begin(d, modules=False)
    leaves = ", ".join([*d.leaves, *d.square])
    if d.chance(0.5):
        d.add(
            f"flat = nn.utils.parameters_to_vector([{leaves}]).detach().clone()",
            f"nn.utils.vector_to_parameters(flat, [{leaves}])",
        )
    else:
        d.add(f"flat = torch.cat([w.detach().flatten() for w in [{leaves}]])", "at = 0")
        with d.block(f"for w in [{leaves}]:"):
            d.add("w.data = flat[at:at + w.numel()].view(w.shape)", "at += w.numel()")

    def write(d: Draft, target: str, leaf: bool) -> None:
        form = d.pick(
            _ON_FLAT if not d.lines[-1].lstrip().startswith("def hook") else [f for f in _ON_FLAT if "*=" not in f]
        )
        d.write(form.format(k=d.number()))
        d.oracle(f"update({leaves})")

    after_saving(d, write, kinds=("leaf", "weight"))


def _offload_ring(d: Draft) -> None:
    """A program's own hooks put what is saved into a ring of buffers, which is too small for what one backward needs."""
    begin(d)
    length = d.pick((1, 2, 2, 3)) if d.chance(0.88) else 200
    d.add(f"ring, used = torch.zeros({length}, 64), []")
    with d.block("def pack(t):"):
        with d.block("if t.dtype != torch.float64 or t.numel() > 64:"):
            d.add("return t")
        d.add("slot = ring[len(used) % len(ring)][:t.numel()].view(t.shape)", "used.append(1)")
        d.write(d.pick(("slot.copy_(t.detach())", "slot[...] = t.detach()", "slot.copy_(t.data)")))
        d.add("return slot")
    with rounds(d):
        with d.block(
            f"with torch.autograd.graph.saved_tensors_hooks(pack, {d.pick(('lambda s: s', 'lambda s: s.clone()'))}):"
        ):
            grow(d, least=1)
            out = save(d, make(d, ("{a} + {b}", "{a} * 0.5")))
            d.values.append(out)
            grow(d, most=2)
            names = losses(d, [save(d, out)])
        backward(d, names)


KINDS: dict[str, Kind] = {"flat_vector": _flat_vector, "offload_ring": _offload_ring}

"""Reports as real cells give them, and hostile and huge ones. `python tests/show/samples.py DIR` writes their JSON."""

import dataclasses
import difflib
import sys
from pathlib import Path

from jupyter_inplace.report import (
    Cell,
    Conflict,
    Error,
    Fix,
    Gradient,
    Mutation,
    Report,
    Site,
    Task,
    TaskCosine,
    TimelineEvent,
    Verification,
    VersionNorm,
    worst,
)
from jupyter_inplace.report.summary import build_summary

TOOL = {"tool": "0.1.0", "framework": "torch", "framework_version": "2.13.0"}


def at(cell: Cell, line: int, text: str, nth: int = 0, function: str = "<module>") -> Site:
    """The site of the `nth` occurrence of an expression on a line of the cell."""
    whole = cell.source.splitlines()[line - 1]
    column = -1
    for _ in range(nth + 1):
        column = whole.index(text, column + 1)
    return Site(
        file=f"In[{cell.execution_count}]", line=line, column=column, end_line=line, end_column=column + len(text),
        text=text, line_text=whole.strip(), function=function, cell_line=line,
    )  # fmt: skip


def fix(number: int, cell: Cell, old: str, new: str, kind: str, title: str, proof: Verification, **more) -> Fix:
    assert old in cell.source
    source = cell.source.replace(old, new, 1)
    diff = "\n".join(difflib.unified_diff(cell.source.splitlines(), source.splitlines(), "cell", "cell", "", "", 1, ""))
    return Fix(id=number, mutations=(0,), kind=kind, title=title, source=source, diff=diff, verification=proof, **more)


def report(**parts) -> Report:
    parts = {"mutations": (), **parts}
    summary = build_summary(
        parts["mutations"],
        parts.get("conflicts", ()),
        parts.get("tasks", ()),
        parts.get("gradients", ()),
        cell=parts.get("cell"),
        error=parts.get("error"),
    )
    return Report(**{"verdict": worst(m.verdict for m in parts["mutations"]), "summary": summary, **TOOL, **parts})


MULTITASK = Cell(
    id="8d0f6c1e",
    execution_count=7,
    source="""\
%%autograd_watch
torch.manual_seed(3)
x = torch.randn(4, 6)
trunk = nn.Linear(6, 5); heads = nn.ModuleDict({"seg": nn.Linear(5, 2), "depth": nn.Linear(5, 1)})
z = torch.tanh(trunk(x))
seg = heads["seg"](z).pow(2).mean()
z.mul_(0.5)  # keep the activations small
depth = heads["depth"](z).abs().mean()
(seg + depth).backward()
""",
)

# torch 2.13, seed 3: the norms of the reference gradients
NORMS = {
    ("seg", "trunk.weight"): 0.2050797939300537,
    ("seg", "trunk.bias"): 0.21126313507556915,
    ("seg", "heads.seg.weight"): 0.26264211535453796,
    ("seg", "heads.seg.bias"): 0.4025135338306427,
    ("depth", "trunk.weight"): 0.2083386331796646,
    ("depth", "trunk.bias"): 0.24510839581489563,
    ("depth", "heads.depth.weight"): 0.2785212993621826,
    ("depth", "heads.depth.bias"): 1.0,
}


def breaks() -> Report:
    """Two tasks, a write between them, four rewrites: two proved, two that fail."""
    cell = MULTITASK
    here = {
        "init": at(cell, 4, "nn.Linear(6, 5)"),
        "init_seg": at(cell, 4, "nn.Linear(5, 2)"),
        "tanh": at(cell, 5, "torch.tanh(trunk(x))"),
        "trunk": at(cell, 5, "trunk(x)"),
        "seg": at(cell, 6, 'heads["seg"](z)'),
        "write": at(cell, 7, "z.mul_(0.5)"),
        "depth": at(cell, 8, 'heads["depth"](z)'),
        "backward": at(cell, 9, "(seg + depth).backward()"),
    }
    hit = ("trunk.weight", "trunk.bias", "heads.seg.weight", "heads.seg.bias")
    both = ("seg", "depth")
    init = {"op": "aten.uniform_.default", "dtype": "float32", "device": "cpu", "versions": (0, 1), "count": 2}
    mutations = (
        Mutation(id=0, op="aten.mul_.Tensor", tensor="z", shape=(4, 5), dtype="float32", device="cpu", storage=5,
                 versions=(0, 1), time=0.0021, site=here["write"], verdict="breaks", value_changed=True, tasks=both,
                 leaves=hit),
        Mutation(id=1, tensor="trunk.weight", shape=(5, 6), storage=1, time=0.0004, site=here["init"],
                 value_changed=True, tensors=("trunk.weight", "trunk.bias"), **init),
        Mutation(id=2, tensor="heads.seg.weight", shape=(2, 5), storage=2, time=0.0007, site=here["init_seg"],
                 value_changed=True, tensors=("heads.seg.weight", "heads.seg.bias"), **init),
    )  # fmt: skip
    conflicts = (
        Conflict(mutation=0, node="TanhBackward0", saved_as="result", tensor="z", saved_version=0, found_version=1,
                 bytes_overlapping=80, saved_site=here["tanh"], tasks=both, leaves=hit[:2], value_changed=True),
        Conflict(mutation=0, node="AddmmBackward0", saved_as="mat1", tensor="z", saved_version=0, found_version=1,
                 bytes_overlapping=80, saved_site=here["seg"], module="heads.seg", tasks=("seg",), leaves=hit,
                 value_changed=True),
    )  # fmt: skip
    ok = {("depth", "heads.depth.weight"), ("depth", "heads.depth.bias")}
    gradients = tuple(
        Gradient(task=t, leaf=f, status="ok", norm_as_run=n, norm_reference=n, relative_difference=0.0, cosine=1.0)
        if (t, f) in ok
        else Gradient(task=t, leaf=f, status="raises", norm_reference=n)
        for (t, f), n in NORMS.items()
    )
    events = [
        ("write", "trunk.weight", 1, here["init"], None, 1, None, 2),
        ("write", "heads.seg.weight", 1, here["init_seg"], None, 2, None, 2),
        ("save", "trunk.weight", 1, here["trunk"], None, None, None, 1),
        ("save", "z", 0, here["tanh"], None, None, 0, 1),
        ("save", "z", 0, here["seg"], None, None, 1, 1),
        ("save", "heads.seg.weight", 1, here["seg"], None, None, None, 1),
        ("write", "z", 1, here["write"], None, 0, None, 1),
        ("save", "z", 1, here["depth"], None, None, None, 1),
        ("backward", None, None, here["backward"], "seg", None, None, 1),
        ("read", "z", 1, here["seg"], "seg", None, 1, 1),
        ("backward", None, None, here["backward"], "depth", None, None, 1),
        ("read", "z", 1, here["depth"], "depth", None, None, 1),
        ("read", "z", 1, here["tanh"], "depth", None, 0, 1),
    ]
    timeline = tuple(
        TimelineEvent(seq=i, time=0.0003 * (i + 1), kind=kind, tensor=tensor, version=version, site=site, task=task,
                      mutation=mutation, conflict=conflict, count=count)
        for i, (kind, tensor, version, site, task, mutation, conflict, count) in enumerate(events)
    )  # fmt: skip
    equal = tuple(
        Gradient(task=t, leaf=f, norm_as_run=n, norm_reference=n, relative_difference=0.0, cosine=1.0)
        for (t, f), n in NORMS.items()
    )
    passed = Verification(status="passed", runs=True, verdict="harmless", losses_equal=True, gradients_equal=True,
                          gradients=equal)  # fmt: skip
    half = Verification(status="failed", runs=False, verdict="breaks", losses_equal=True, gradients_equal=False,
                        reason='depth is cured, seg is not: heads["seg"](z) saved z too')  # fmt: skip
    none = Verification(status="failed", runs=False, verdict="breaks", losses_equal=True, gradients_equal=False,
                        reason="the saved tensor is overwritten all the same")  # fmt: skip
    old = "z.mul_(0.5)  # keep"
    fixes = (
        fix(0, cell, old, "z = z.mul(0.5)  # keep", "out_of_place", "multiply out of place", passed, extra_bytes=80),
        fix(1, cell, old, "z = z.clone().mul_(0.5)  # keep", "clone", "clone at the write", passed, extra_bytes=80),
        fix(2, cell, "torch.tanh(trunk(x))", "torch.tanh(trunk(x)).clone()", "clone", "clone at the save", half,
            extra_bytes=80),
        fix(3, cell, old, "with torch.no_grad():\n    z.mul_(0.5)  # keep", "no_grad", "write outside of autograd",
            none, extra_bytes=0),
    )  # fmt: skip
    cosines = (
        TaskCosine(leaf="trunk.weight", tasks=both, reference=-0.5670612454414368),
        TaskCosine(leaf="trunk.bias", tasks=both, reference=-0.699262797832489),
    )
    error = Error(
        type="RuntimeError",
        message="one of the variables needed for gradient computation has been modified by an inplace operation: "
        "[torch.FloatTensor [4, 5]], which is output 0 of Mul, is at version 1; expected version 0 instead.",
        site=here["backward"],
    )
    return report(
        cell=cell, error=error, mutations=mutations, conflicts=conflicts,
        tasks=(Task(name="seg", status="raises", site=here["backward"]),
               Task(name="depth", status="raises", site=here["backward"])),
        gradients=gradients, task_cosines=cosines, timeline=timeline, fixes=fixes,
    )  # fmt: skip


def rejected() -> Report:
    """The founding example: a leaf that requires grad, and its two readings."""
    cell = Cell(
        id="1f",
        execution_count=3,
        source="%%autograd_watch\nx = torch.randn(3)\nw = torch.ones(3, requires_grad=True)\nloss1 = (w * x).sum()\n"
        "w.mul_(2)\nloss2 = (w * x).pow(2).sum()\n(loss1 + loss2).backward()\n",
    )
    site = at(cell, 5, "w.mul_(2)")
    mutations = (
        Mutation(id=0, op="aten.mul_.Tensor", tensor="w", shape=(3,), dtype="float32", device="cpu", storage=1,
                 versions=(0, 0), time=0.001, site=site, verdict="rejected", value_changed=False,
                 tasks=("loss1", "loss2"), leaves=("w",)),
    )  # fmt: skip
    proof = Verification(status="passed", runs=True, verdict="mixes", losses_equal=True, gradients_equal=True)
    copy = dataclasses.replace(proof, verdict="harmless")
    return report(
        cell=cell,
        error=Error(type="RuntimeError", site=site,
                    message="a leaf Variable that requires grad is being used in an in-place operation."),
        mutations=mutations,
        tasks=(Task(name="loss1", status="not_run"), Task(name="loss2", status="not_run")),
        gradients=(Gradient(task="loss1", leaf="w", status="raises", norm_reference=1.5),
                   Gradient(task="loss2", leaf="w", status="raises")),
        timeline=(TimelineEvent(seq=0, kind="save", tensor="x", version=0, site=at(cell, 4, "w * x")),
                  TimelineEvent(seq=1, kind="write", tensor="w", version=0, site=site, mutation=0)),
        fixes=(fix(0, cell, "w.mul_(2)", "with torch.no_grad(): w.mul_(2)", "no_grad", "update the leaf", proof,
                   reading="update", extra_bytes=0),
               fix(1, cell, "w.mul_(2)\nloss2 = (w * x)", "w2 = w * 2\nloss2 = (w2 * x)", "out_of_place",
                   "go on with a new tensor", copy, reading="copy", extra_bytes=12)),
    )  # fmt: skip


def corrupts() -> Report:
    """A `.data` write in a model file: nothing raises, and the gradient is wrong."""
    cell = Cell(id="2a", execution_count=12, source="%%autograd_watch\nloss = model(x)\nloss.backward()\n")
    where = {"file": "/home/ada/models/block.py", "function": "Block.forward", "cell_line": 2}
    save = Site(
        line=41, column=12, end_line=41, end_column=24, text="h.sigmoid_()", line_text="y = h.sigmoid_()", **where
    )
    write = Site(line=44, column=8, end_line=44, end_column=24, text="y.data.mul_(self.gain)",
                 line_text="y.data.mul_(self.gain)  # gain control", **where)  # fmt: skip
    leaves = ("model.proj.weight", "model.proj.bias")
    return report(
        cell=cell,
        mutations=(
            Mutation(id=4, op="aten.mul_.Tensor", tensor="y", shape=(64, 128), dtype="float32", device="cuda:0",
                     storage=9, versions=(1, 1), time=0.2, count=12, site=write, verdict="corrupts",
                     value_changed=True, tasks=("loss",), leaves=leaves, module="model.blocks.0"),
            Mutation(id=5, op="aten.sigmoid_.default", tensor="h", shape=(64, 128), dtype="float32", device="cuda:0",
                     storage=9, versions=(0, 1), time=0.1, count=12, site=save),
        ),
        conflicts=(
            Conflict(mutation=4, node="SigmoidBackward0", saved_as="result", tensor="y", saved_version=1,
                     found_version=1, bytes_overlapping=32768, saved_site=save, module="model.blocks.0",
                     tasks=("loss",), leaves=leaves, value_changed=True),
        ),
        tasks=(Task(name="loss", status="wrong", site=at(cell, 3, "loss.backward()")),),
        gradients=(
            Gradient(task="loss", leaf=leaves[0], status="wrong", norm_as_run=0.75, norm_reference=1.5,
                     relative_difference=0.5, cosine=0.875, occurrence=3),
            Gradient(task="loss", leaf=leaves[1], status="wrong", norm_as_run=0.0031, norm_reference=0.003,
                     relative_difference=0.0625, cosine=0.998, occurrence=0),
            Gradient(task="loss", leaf="model.head.weight", norm_as_run=2.25, norm_reference=2.25,
                     relative_difference=0.0, cosine=1.0),
        ),
        timeline=(
            TimelineEvent(seq=0, kind="write", tensor="h", version=1, site=save, mutation=5, count=12),
            TimelineEvent(seq=1, kind="save", tensor="y", version=1, site=save, conflict=0, count=12),
            TimelineEvent(seq=2, kind="write", tensor="y", version=1, site=write, mutation=4, count=12),
            TimelineEvent(seq=3, kind="backward", task="loss", site=at(cell, 3, "loss.backward()"), count=12),
            TimelineEvent(seq=4, kind="read", tensor="y", version=1, site=save, task="loss", conflict=0, count=12),
        ),
        blind_spots=("torch.compile: the writes inside of one compiled region could not be seen",),
    )  # fmt: skip


def cuts() -> Report:
    """A write under no_grad on a gradient path: the leaf gets nothing."""
    cell = Cell(
        id="2b",
        execution_count=5,
        source="%%autograd_watch\nout = torch.zeros(3)\nfor i in range(3):\n    with torch.no_grad(): out[i] = w[i] * 2\n"
        "loss = (out + b).sum(); loss.backward()\n",
    )
    write = at(cell, 4, "out[i] = w[i] * 2")
    return report(
        cell=cell,
        mutations=(
            Mutation(id=0, op="aten.copy_.default", tensor="out", shape=(), dtype="float32", device="cpu", storage=1,
                     versions=(0, 1), time=0.0, count=3, site=write, verdict="cuts", value_changed=True,
                     tasks=("loss",), leaves=("w",)),
        ),
        tasks=(Task(name="loss", status="lost", site=at(cell, 5, "loss.backward()")),),
        gradients=(Gradient(task="loss", leaf="w", status="lost", norm_as_run=0.0, norm_reference=3.4641),
                   Gradient(task="loss", leaf="b", norm_as_run=1.7320508, norm_reference=1.7320508,
                            relative_difference=0.0, cosine=1.0)),
        timeline=(TimelineEvent(seq=0, kind="write", tensor="out", version=3, site=write, mutation=0, count=3),
                  TimelineEvent(seq=1, kind="backward", task="loss", site=at(cell, 5, "loss.backward()"))),
    )  # fmt: skip


def mixes() -> Report:
    """An update between two tasks that share a gradient: legal, a note."""
    cell = Cell(
        id="2c",
        execution_count=9,
        source="%%autograd_watch\nloss1 = (w * x).sum(); loss1.backward()\nwith torch.no_grad(): w.mul_(2)\n"
        "loss2 = (w * y).sum(); loss2.backward()\n",
    )
    write = at(cell, 3, "w.mul_(2)")
    return report(
        cell=cell,
        mutations=(
            Mutation(id=0, op="aten.mul_.Tensor", tensor="w", shape=(3,), dtype="float32", device="cpu", storage=1,
                     versions=(0, 1), time=0.001, site=write, verdict="mixes", value_changed=True,
                     tasks=("loss1", "loss2"), leaves=("w",)),
        ),
        tasks=(Task(name="loss1", site=at(cell, 2, "loss1.backward()")),
               Task(name="loss2", site=at(cell, 4, "loss2.backward()"))),
        gradients=(
            Gradient(task="loss1", leaf="w", norm_as_run=1.25, norm_reference=1.25, relative_difference=0.0,
                     cosine=1.0, by_version=(VersionNorm(0, 1.25),)),
            Gradient(task="loss2", leaf="w", norm_as_run=0.5, norm_reference=0.5, relative_difference=0.0,
                     cosine=1.0, by_version=(VersionNorm(1, 0.5),)),
        ),
        task_cosines=(TaskCosine(leaf="w", tasks=("loss1", "loss2"), as_run=0.31, reference=0.31),),
        timeline=(
            TimelineEvent(seq=0, kind="save", tensor="x", version=0, site=at(cell, 2, "w * x")),
            TimelineEvent(seq=1, kind="backward", task="loss1", site=at(cell, 2, "loss1.backward()")),
            TimelineEvent(seq=2, kind="write", tensor="w", version=1, site=write, mutation=0),
            TimelineEvent(seq=3, kind="save", tensor="y", version=0, site=at(cell, 4, "w * y")),
            TimelineEvent(seq=4, kind="backward", task="loss2", site=at(cell, 4, "loss2.backward()")),
        ),
    )  # fmt: skip


def clean() -> Report:
    """An ordinary training loop: many writes, none harmful."""
    cell = Cell(
        id="3a",
        execution_count=2,
        source="%%autograd_watch\nfor x, y in batches:\n    opt.zero_grad()\n    loss = F.cross_entropy(net(x), y)\n"
        "    loss.backward()\n    opt.step()\n",
    )
    names = tuple(f"net.{i}.{kind}" for i in (0, 3, 6) for kind in ("weight", "bias"))
    relu, step = at(cell, 4, "net(x)"), at(cell, 6, "opt.step()")
    return report(
        cell=cell,
        mutations=(
            Mutation(id=0, op="aten.relu_.default", tensor="t1", shape=(64, 32), dtype="float32", device="cpu",
                     storage=4, versions=(0, 1), time=0.002, count=900, site=relu, module="net.1", value_changed=True),
            Mutation(id=1, op="Adam.step", tensor="net.0.weight", shape=(32, 64), dtype="float32", device="cpu",
                     storage=1, versions=(0, 1), time=0.01, count=900, site=step, tensors=names, value_changed=True),
        ),
        tasks=(Task(name="loss", site=at(cell, 5, "loss.backward()")),),
        timeline=(
            TimelineEvent(seq=0, kind="write", tensor="t1", version=1, site=relu, mutation=0, count=900),
            TimelineEvent(seq=1, kind="backward", task="loss", site=at(cell, 5, "loss.backward()"), count=900),
            TimelineEvent(seq=2, kind="write", tensor="net.0.weight", version=1, site=step, mutation=1, count=900),
        ),
    )  # fmt: skip


def empty() -> Report:
    """A cell that wrote nothing in place."""
    return report(cell=Cell(id="3b", execution_count=1, source="%%autograd_watch\ny = x * 2\n"))


def many(events: int = 10_000, leaves: int = 500, tasks: int = 8, writes: int = 200) -> Report:
    """A big one: thousands of events, hundreds of leaves, several tasks, one harmful write in the middle."""
    lines = ["%%autograd_watch"] + [f"h{i} = block{i}(h{i - 1})" for i in range(1, writes + 1)]
    harmful = writes // 2
    lines[harmful] = f"h{harmful - 1}.mul_(2)"
    cell = Cell(id="4a", execution_count=20, source="\n".join(lines) + "\n")
    sites = [at(cell, i + 1, lines[i]) for i in range(1, writes + 1)]
    leaf_names = [f"model.layers.{i // 2}.attention.proj.{'weight' if i % 2 == 0 else 'bias'}" for i in range(leaves)]
    task_names = [f"losses[{i}]" for i in range(tasks)]
    hit = tuple(leaf_names[: leaves // 4])
    bad = harmful - 1
    mutations = tuple(
        Mutation(id=i, op="aten.mul_.Tensor", tensor=f"h{i}", shape=(64, 128), dtype="float32", device="cpu",
                 storage=i, versions=(0, 1), time=i * 1e-3, site=site, value_changed=True,
                 verdict="breaks" if i == bad else "harmless", tasks=tuple(task_names[:3]) if i == bad else (),
                 leaves=hit if i == bad else ())
        for i, site in enumerate(sites)
    )  # fmt: skip
    conflicts = (
        Conflict(mutation=bad, node="MulBackward0", saved_as="self", tensor=f"h{bad}", saved_version=0,
                 found_version=1, bytes_overlapping=32768, saved_site=sites[bad - 1], tasks=tuple(task_names[:3]),
                 leaves=hit),
    )  # fmt: skip
    gradients = tuple(
        Gradient(task=t, leaf=f, status="raises", norm_reference=0.1 + 0.001 * i)
        if i < len(hit) and j < 3
        else Gradient(task=t, leaf=f, norm_as_run=0.123456789 + i, norm_reference=0.123456789 + i,
                      relative_difference=0.0, cosine=1.0)
        for j, t in enumerate(task_names)
        for i, f in enumerate(leaf_names)
    )  # fmt: skip
    kinds = ("save", "write", "save", "read")
    timeline = []
    for i in range(events):
        k = i * writes // events
        kind = kinds[i % 4] if i * 10 < events * 9 else "read"
        last = i == events - 1
        timeline.append(
            TimelineEvent(seq=i, time=i * 1e-4, kind=kind, tensor=f"h{bad}" if last else f"h{k}", version=i % 2,
                          site=sites[bad - 1] if last else sites[k], task=task_names[i % tasks] if kind == "read" else None,
                          mutation=k if kind == "write" else None,
                          conflict=0 if last or (kind == "save" and k == bad) else None)
        )  # fmt: skip
    return report(
        cell=cell, mutations=mutations, conflicts=conflicts,
        tasks=tuple(Task(name=t, status="raises" if j < 3 else "ok") for j, t in enumerate(task_names)),
        gradients=gradients, timeline=tuple(timeline),
        task_cosines=tuple(TaskCosine(leaf=f, tasks=(task_names[0], task_names[1]), reference=(i % 7 - 3) / 4)
                           for i, f in enumerate(leaf_names[:40])),
    )  # fmt: skip


def hostile(value, text: str = "<script>alert('1')</script>\"&"):
    """The same report with a hostile text in every string that a user or a saved file can set."""
    words = {"format", "kind", "status", "verdict", "reading"}
    if isinstance(value, str):
        return text
    if isinstance(value, tuple):
        return tuple(hostile(item, text) for item in value)
    if not dataclasses.is_dataclass(value):
        return value
    changed = {f.name: hostile(getattr(value, f.name), text) for f in dataclasses.fields(value) if f.name not in words}
    if isinstance(value, Site):
        changed["file"] = value.file  # a cell stays a cell, so that its source is shown
    return dataclasses.replace(value, **changed)


def script() -> Report:
    """A training script: no cell, sites in files."""
    inner = breaks()

    def moved(site):
        return site and dataclasses.replace(site, file="/home/ada/train.py", line=site.line + 30, cell_line=None)

    parts = {
        "mutations": tuple(dataclasses.replace(m, site=moved(m.site)) for m in inner.mutations),
        "conflicts": tuple(dataclasses.replace(c, saved_site=moved(c.saved_site)) for c in inner.conflicts),
        "tasks": tuple(dataclasses.replace(t, site=moved(t.site)) for t in inner.tasks),
        "timeline": tuple(dataclasses.replace(e, site=moved(e.site)) for e in inner.timeline),
    }
    return report(gradients=inner.gradients, task_cosines=inner.task_cosines, **parts)


SAMPLES = {f.__name__: f for f in (breaks, rejected, corrupts, cuts, mixes, clean, empty, script, many)}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in SAMPLES.items():
        make().to_json(folder / f"{name}.json")
    hostile(breaks()).to_json(folder / "hostile.json")

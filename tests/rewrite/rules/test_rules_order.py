"""Statements at another place: the write below a backward, a backward above the write, a write out of a function."""

import pytest
from rules_helper import becomes, rewrites

GAN = """
d_loss.backward(retain_graph=True)
opt_d.step()  # the critic
opt_g.zero_grad()
g_loss.backward()
opt_g.step()
"""
STEP = {"text": "opt_d.step()", "tensor": "D.weight", "tasks": ("g_loss",)}


def test_a_step_below_the_backward_that_needs_the_old_weights():
    candidate = becomes(
        GAN,
        """
        d_loss.backward(retain_graph=True)
        opt_g.zero_grad()
        g_loss.backward()
        opt_d.step()  # the critic
        opt_g.step()
        """,
        **STEP,
    )
    assert candidate.kind == "reorder"
    assert candidate is not rewrites(GAN, **STEP)[-1]


def test_the_backward_keeps_its_gradients_out_of_the_step():
    becomes(
        GAN,
        """
        d_loss.backward(retain_graph=True)
        opt_g.zero_grad()
        g_loss.backward(inputs=[p for group in opt_g.param_groups for p in group["params"]])
        opt_d.step()  # the critic
        opt_g.step()
        """,
        **STEP,
    )
    becomes(
        "opt_g = SGD(G.parameters(), lr=1)\n" + GAN.strip(),
        """
        opt_g = SGD(G.parameters(), lr=1)
        d_loss.backward(retain_graph=True)
        opt_g.zero_grad()
        g_loss.backward(inputs=list(G.parameters()))
        opt_d.step()  # the critic
        opt_g.step()
        """,
        **STEP,
    )


def test_the_last_line_has_no_line_break():
    found = rewrites("a = 1\nh.mul_(2)\nloss.backward()".strip(), text="h.mul_(2)")
    assert "a = 1\nloss.backward()\nh.mul_(2)\n" in [candidate.source for candidate in found]


def test_statements_of_one_line():
    becomes("a.backward(); opt.step()\nb.backward()\n", "a.backward()\nb.backward()\nopt.step()\n", text="opt.step()")


def test_the_block_around_the_write_moves():
    becomes(
        """
        with torch.no_grad():
            for p in ps:
                p.clamp_(0, 1)
        loss.backward()
        """,
        """
        loss.backward()
        with torch.no_grad():
            for p in ps:
                p.clamp_(0, 1)
        """,
        text="p.clamp_(0, 1)",
    )


CRITIC = """
class Critic(nn.Module):
    def clip(self):
        for p in self.parameters():
            p.data.clamp_(-1, 1)
critic = Critic()
loss = critic(x)
critic.clip()
loss.backward()
"""


def test_the_call_of_the_method_that_writes_moves():
    after = CRITIC.replace("critic.clip()\nloss.backward()", "loss.backward()\ncritic.clip()")
    becomes(CRITIC, after, text="p.data.clamp_(-1, 1)", verdict="corrupts")


TRAINER = """
class Trainer:
    def critic_step(self):
        self.d_loss.backward(retain_graph=True)
        self.opt_d.step()

    def generator_step(self):
        self.g_loss.backward()
        self.opt_g.step()
trainer = Trainer()
trainer.critic_step()
trainer.generator_step()
"""


def test_a_step_goes_out_of_its_method_below_the_other_methods_backward():
    after = TRAINER.replace("        self.opt_d.step()\n", "").replace(
        "trainer.generator_step()\n", "trainer.generator_step()\ntrainer.opt_d.step()\n"
    )
    becomes(TRAINER, after, text="self.opt_d.step()", tensor="trainer.D.weight", tasks=("trainer.g_loss",))


def test_a_statement_that_uses_names_of_its_function_stays():
    before = TRAINER.replace("        self.opt_d.step()\n", "        opt = self.opt_d\n        opt.step()\n")
    for candidate in rewrites(before, text="opt.step()"):
        assert "trainer.generator_step()\nopt.step()" not in candidate.source


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("h = x.exp()\ny = h.mul_(2)\nloss = y.sum()\nloss.backward()\n", "h.mul_(2)"),  # the loss needs what moves
        ("loss.backward()\nopt.step()\n", "opt.step()"),  # no backward below
        ("for x in xs:\n    opt.step()\n    loss = f(x)\n    loss.backward()\n", "loss.backward()"),
    ],
)
def test_nothing_moves_where_that_makes_no_sense(cell, text):
    assert all(
        candidate.kind != "reorder" for candidate in rewrites(cell, text=text, saved="x.exp()" if "exp" in cell else ())
    )


def test_an_early_backward_for_the_task_that_needs_the_old_values():
    before = """
        a = f(ids)
        ids += 1
        b = f(ids)
        (a + b).backward()
        """
    becomes(before, "a = f(ids)\na.backward()\nids += 1\nb = f(ids)\nb.backward()\n", text="ids += 1", saved="f(ids)")
    named = before.replace("(a + b).backward()", "loss = a + b\n        loss.backward()")
    becomes(
        named,
        "a = f(ids)\na.backward(retain_graph=True)\nids += 1\nb = f(ids)\nloss = a + b\nb.backward()\n",
        text="ids += 1", saved="f(ids)",
    )  # fmt: skip


def test_a_write_goes_out_of_a_checkpointed_function():
    before = """
        def block(x, k):
            counts.add_(k)
            return torch.tanh(x * counts)
        y = checkpoint(block, h, 2, use_reentrant=False)
        y.sum().backward()
        """
    becomes(
        before,
        """
        def block(x, k):
            return torch.tanh(x * counts)
        counts.add_(2)
        y = checkpoint(block, h, 2, use_reentrant=False)
        y.sum().backward()
        """,
        text="counts.add_(k)",
    )
    becomes(
        before.replace("block(x, k)", "block(self, x, k)").replace("counts", "self.counts").replace("checkpoint(block,", "checkpoint(net.block,"),
        """
        def block(self, x, k):
            return torch.tanh(x * self.counts)
        y = checkpoint(net.block, h, 2, use_reentrant=False)
        net.counts.add_(2)
        y.sum().backward()
        """,
        text="self.counts.add_(k)",
    )  # fmt: skip


def test_pieces_become_slices():
    becomes(
        "import torch\ngate, rest = h.unsafe_chunk(2, dim=1)\ngate.mul_(3.0)\n",
        "import torch\ngate, rest = (h.narrow(1, int(i[0]), len(i)) for i in torch.arange(h.shape[1]).chunk(2))\ngate.mul_(3.0)\n",
        text="gate.mul_(3.0)", verdict="cuts",
    )  # fmt: skip
    becomes(
        "import torch\ngate, rest = h.unsafe_chunk(2, dim=1)\ngate.mul_(3.0)\n",
        "import torch\ngate, rest = h.chunk(2, dim=1)\ngate = gate.mul(3.0)\nh = torch.cat([gate, rest], dim=1)\n",
        text="gate.mul_(3.0)", verdict="cuts",
    )  # fmt: skip
    becomes(
        "import torch\na, b = h.unbind(-1)\na += 1\n",
        "import torch\na, b = h.unbind(-1)\na = a + 1\nh = torch.stack([a, b], dim=-1)\n",
        text="a += 1", verdict="rejected",
    )  # fmt: skip


LOOPS = {
    "rows": (
        "import torch\nfor row in x:\n    row.mul_(2)\n",
        "import torch\nx_rows = list(x)\nfor i, row in enumerate(x):\n    row = row.mul(2)\n    x_rows[i] = row\nx = torch.stack(x_rows)\n",
    ),
    "zip": (
        "import torch\nfor row, k in zip(x, ks):\n    row.mul_(k)\n",
        "import torch\nx_rows = list(x)\nfor i, (row, k) in enumerate(zip(x, ks)):\n    row = row.mul(k)\n    x_rows[i] = row\nx = torch.stack(x_rows)\n",
    ),
    "counted already": (
        "import torch\nfor n, row in enumerate(x):\n    row += n\n",
        "import torch\nx_rows = list(x)\nfor n, row in enumerate(x):\n    row = row + n\n    x_rows[n] = row\nx = torch.stack(x_rows)\n",
    ),
    "list": (
        "for t in ts:\n    t.mul_(2)\n",
        "for i, t in enumerate(ts):\n    t = t.mul(2)\n    ts[i] = t\n",
    ),
    "dict": (
        "for k, t in d.items():\n    t.mul_(2)\n",
        "for k, t in d.items():\n    t = t.mul(2)\n    d[k] = t\n",
    ),
}


@pytest.mark.parametrize(("before", "after"), LOOPS.values(), ids=LOOPS)
def test_a_loops_own_variable_is_written_back(before, after):
    text = next(line.strip() for line in before.splitlines() if line.startswith("    "))
    becomes(before, after, text=text)


SLOTS = {
    "recurrence": (
        "import torch\nfor t in range(1, 4):\n    out[t] = f(out[t - 1])\ny = out\n",
        "import torch\nout_rows = list(out)\nfor t in range(1, 4):\n    out_rows[t] = f(out_rows[t - 1])\nout = torch.stack(out_rows)\ny = out\n",
        "out[t]",
    ),
    "augmented, another dimension": (
        "import torch\nfor i in range(1, x.shape[2]):\n    x[:, :, i] += f(x[:, :, i - 1])\n",
        "import torch\nx_rows = list(x.unbind(2))\nfor i in range(1, x.shape[2]):\n    x_rows[i] = x_rows[i] + f(x_rows[i - 1])\nx = torch.stack(x_rows, dim=2)\n",
        "x[:, :, i] += f(x[:, :, i - 1])",
    ),
    "outer loop": (
        "import torch\nfor t in r:\n    for k in s:\n        out[t] = out[t] + k\n",
        "import torch\nout_rows = list(out)\nfor t in r:\n    for k in s:\n        out_rows[t] = out_rows[t] + k\nout = torch.stack(out_rows)\n",
        "out[t]",
    ),
}


@pytest.mark.parametrize(("before", "after", "text"), SLOTS.values(), ids=SLOTS)
def test_slots_become_a_list(before, after, text):
    becomes(before, after, text=text, tensor="out")


@pytest.mark.parametrize("other", ["g(out)", "out[t:]", "out[0, t]", "out[..., t]", "out[[0, 1]]"])
def test_slots_stay_where_the_loop_uses_the_whole_tensor(other):
    cell = f"for t in r:\n    out[t] = f({other})\n"
    assert all("out_rows" not in candidate.source for candidate in rewrites(cell, text="out[t]", tensor="out"))

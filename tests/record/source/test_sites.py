"""Source sites: the frame walk, and what a site says about its expression."""

import ast
import dis
import doctest
import linecache
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_inplace.record.source import sites
from jupyter_inplace.record.source.expressions import argument_names, written_name, written_names
from jupyter_inplace.record.source.resolver import SiteResolver
from jupyter_inplace.record.source.sites import find_site, find_site_and_module, is_user_code

CALL_IMPL = nn.Module._call_impl.__code__


def run_cell(source, *, file="/tmp/ipykernel_123/456.py", keep=None, namespace=None, cached=True, typed=None, **names):
    """Run a cell as IPython would; collect the key of every torch operation together with its name."""
    source = textwrap.dedent(source)
    if cached:
        source = source.strip("\n") + "\n"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    seen = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            key, module = find_site_and_module(CALL_IMPL, 2, frozenset({file}))
            assert key == find_site(2, frozenset({file}))
            if keep is None or func._schema.name.split("::")[1] in keep:
                seen.append((func._schema.name.split("::")[1], key, module))
            return func(*args, **(kwargs or {}))

    namespace = {"__name__": "__main__", "torch": torch, "nn": nn, "F": nn.functional, **names, **(namespace or {})}
    with Recorder():
        exec(compile(source, file, "exec"), namespace)
    resolver = SiteResolver({file: "In[7]"}, file, typed or source)
    return [(name, resolver.resolve(key), module) for name, key, module in seen]


def texts(source, *ops, **options):
    return [site.text for _, site, _ in run_cell(source, keep=set(ops), **options)]


class TestExpressions:
    @pytest.mark.parametrize(
        ("statement", "ops", "expected"),
        [
            ("x.mul_(2)", ["mul_"], ["x.mul_(2)"]),
            ("x += 1", ["add_"], ["x += 1"]),
            ("x[0] = 5", ["fill_", "copy_"], ["x[0] = 5"]),
            ("x[0] += 1", ["add_", "copy_"], ["x[0] += 1", "x[0] += 1"]),
            ("x[0] += 1", ["select"], ["x[0]", "x[0] += 1"]),
            ("x[[0, 1]] = y[[0, 1]]", ["index_put_"], ["x[[0, 1]] = y[[0, 1]]"]),
            ("x.mul_(2).add_(1)", ["mul_", "add_"], ["x.mul_(2)", "x.mul_(2).add_(1)"]),
            ("x.mul_(2); y.add_(1); x.sub_(3)", ["mul_", "add_", "sub_"], ["x.mul_(2)", "y.add_(1)", "x.sub_(3)"]),
            ("a, b = x.mul_(2), y.add_(1)", ["mul_", "add_"], ["x.mul_(2)", "y.add_(1)"]),
            (
                "z = torch.exp(-x / y.exp())",
                ["neg", "div", "exp"],
                ["-x", "y.exp()", "-x / y.exp()", "torch.exp(-x / y.exp())"],
            ),
            ("torch.add(x, y, out=x)", ["add"], ["torch.add(x, y, out=x)"]),
            ("p, q, r, s = x", ["unbind"], ["p, q, r, s = x"]),
            ("for row in x: row.mul_(2)", ["unbind", "mul_"], ["for row in x"] + ["row.mul_(2)"] * 4),
            ("[row.mul_(2) for row in x]", ["mul_"], ["row.mul_(2)"] * 4),
            ("x @ y", ["dot"], ["x @ y"]),
            ("(lambda t: t.neg_())(x)", ["neg_"], ["t.neg_()"]),
            ("é = 'ü'; x.mul_(len('ñandú'))", ["mul_"], ["x.mul_(len('ñandú'))"]),
            ("F.relu(x, inplace=True)", ["relu_"], ["F.relu(x, inplace=True)"]),
            (
                "F.dropout(x.relu_(), inplace=True)",
                ["relu_", "bernoulli_"],
                ["x.relu_()", "F.dropout(x.relu_(), inplace=True)"],
            ),
        ],
    )
    def test_text(self, statement, ops, expected):
        x, y = torch.ones(4), torch.ones(4)
        assert texts(statement, *ops, x=x, y=y) == expected

    def test_columns_count_characters(self):
        [(_, site, _)] = run_cell("é = 'ü'; x.mul_(2)  # ß", keep={"mul_"}, x=torch.ones(2))
        assert (site.line, site.column, site.end_line, site.end_column) == (1, 9, 1, 18)
        assert site.line_text == "é = 'ü'; x.mul_(2)  # ß"
        assert "é = 'ü'; x.mul_(2)  # ß"[site.column : site.end_column] == "x.mul_(2)"

    def test_expression_over_several_lines(self):
        source = """
        y = (
            x.mul_(2)  # doubled
            .add_(
                1,  # one
                alpha=3,
            )
        )
        """
        [(_, first, _), (_, second, _)] = run_cell(source, keep={"mul_", "add_"}, x=torch.ones(2))
        assert first.text == "x.mul_(2)"
        assert second.text == "x.mul_(2).add_(1, alpha=3,)"
        assert (second.line, second.end_line, second.line_text, second.cell_line) == (2, 6, "x.mul_(2)  # doubled", 2)

    def test_decorator(self):
        source = """
        @apply(x)
        def f(t):
            return t.mul_(2)
        """
        [(_, site, _), (_, made, _)] = run_cell(
            source, keep={"mul_", "neg_"}, x=torch.ones(2), apply=lambda t: t.neg_() is t and (lambda f: f(t))
        )
        assert (made.text, made.function, made.cell_line) == ("return t.mul_(2)"[7:], "f", 3)
        assert site.function.endswith("<lambda>")
        assert site.cell_line == 1

    def test_with_shows_its_header_only(self):
        source = """
        with Writes(x) as w:
            pass
        """

        class Writes:
            def __init__(self, t):
                self.t = t

            def __enter__(self):
                self.t.mul_(2)

            def __exit__(self, *_):
                self.t.add_(2)

        Writes.__enter__ = torch.no_grad()(Writes.__enter__)
        entered, left = run_cell(source, keep={"mul_", "add_"}, x=torch.ones(2), Writes=Writes)
        assert (entered[1].cell_line, left[1].cell_line) == (1, 1)
        assert (entered[1].text, left[1].text) == ("self.t.mul_(2)", "self.t.add_(2)")

    def test_property_of_the_library_in_a_with_header(self):
        source = "with Freeze(x):\n    y = 1\n"
        library = {}
        exec(
            compile(
                "class Freeze:\n def __init__(s, t): s.t = t\n def __enter__(s): s.t.mul_(2)\n def __exit__(s, *a): s.t.add_(2)\n",
                "/usr/lib/site-packages/freeze.py",
                "exec",
            ),
            library,
        )
        entered, left = run_cell(source, keep={"mul_", "add_"}, x=torch.ones(2), Freeze=library["Freeze"])
        assert entered[1].text in {"Freeze(x)", "with Freeze(x)"}  # Python versions place the two calls differently
        assert left[1].text in {"Freeze(x)", "with Freeze(x)"}
        assert left[1].line == 1


class TestFrames:
    def test_a_module_call_is_the_users_line(self):
        net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
        [(_, site, module)] = run_cell("pred = net(x)\n", keep={"relu_"}, net=net, x=torch.ones(1, 2))
        assert (site.file, site.text, site.function, site.cell_line) == ("In[7]", "net(x)", "<module>", 1)
        assert module is net[1]

    def test_modules_outside_of_the_users_frame(self):
        source = """
        class Block(nn.Module):
            def forward(self, x):
                return x.mul_(2)
        block = Block()
        outer = nn.Sequential(block)
        y = outer(x)
        z = x.add_(1)
        """
        namespace = {}
        [(_, inner, module), (_, outside, none)] = run_cell(
            source, keep={"mul_", "add_"}, x=torch.ones(2), keep_in=namespace
        )
        assert (inner.text, inner.function, inner.line, inner.cell_line) == ("x.mul_(2)", "Block.forward", 3, 3)
        assert type(module).__name__ == "Block"
        assert (outside.function, none) == ("<module>", None)

    def test_backward_belongs_to_its_call_and_hooks_to_themselves(self):
        source = """
        w = torch.ones(2, requires_grad=True)
        h = w * 2
        def hook(g):
            return g.neg()
        h.register_hook(hook)
        h.sum().backward()
        """
        found = run_cell(source, keep={"neg", "mul"})
        assert [(site.text, site.function) for _, site, _ in found] == [
            ("w * 2", "<module>"),
            ("g.neg()", "hook"),
            ("h.sum().backward()", "<module>"),
        ]

    def test_user_module_outside_of_the_cell(self, tmp_path, monkeypatch):
        (tmp_path / "my_layers.py").write_text("\n\ndef scale(t):\n    t.mul_(2)\n    return t\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        import my_layers

        [(_, site, _)] = run_cell(
            "x = 1\ny = my_layers.scale(\n    t)\n", keep={"mul_"}, my_layers=my_layers, t=torch.ones(2)
        )
        assert site.file == str(tmp_path / "my_layers.py")
        assert (site.line, site.text, site.function, site.cell_line) == (4, "t.mul_(2)", "scale", 2)

    def test_installed_library_is_not_the_users(self, tmp_path):
        library = {}
        exec(
            compile("def scale(t):\n    return t.mul_(2)\n", str(tmp_path / "site-packages" / "lib.py"), "exec"),
            library,
        )
        [(_, site, _)] = run_cell("y = scale(t)\n", keep={"mul_"}, scale=library["scale"], t=torch.ones(2))
        assert site.text == "scale(t)"

    @pytest.mark.parametrize(
        "name",
        ["<string>", "<stdin>", "<case>", "<ipython-input-3-0123456789ab>", "<doctest a[0]>", "<timed exec>", __file__],
    )
    def test_names_of_the_users_code(self, name):
        assert is_user_code(name)

    @pytest.mark.parametrize(
        "name",
        [
            torch.__file__,
            nn.functional.__file__,
            textwrap.__file__,
            threading.__file__,
            pytest.__file__,
            sites.__file__,
            doctest.__file__,
            "<frozen importlib._bootstrap>",
            "<eval_with_key>.0",
            "/usr/lib/python3/dist-packages/a.py",
        ],
    )
    def test_names_of_library_code(self, name):
        assert not is_user_code(name)

    def test_dataclass_init_is_not_the_users_line(self):
        source = """
        import dataclasses
        @dataclasses.dataclass
        class State:
            t: object = None
            u: object = dataclasses.field(default_factory=make)
        state = State()
        """
        library = {"torch": torch}
        exec(compile("def make():\n    return torch.ones(2).neg_()\n", "/x/site-packages/a.py", "exec"), library)
        [(_, site, _)] = run_cell(source, keep={"neg_"}, make=library["make"])
        assert site.text == "State()"

    def test_code_without_source_shows_the_cell(self):
        [(_, site, _)] = run_cell("exec('t.mul_(2)')\n", keep={"mul_"}, t=torch.ones(2))
        assert (site.text, site.cell_line) == ("exec('t.mul_(2)')", 1)

    def test_no_frame_of_the_users(self):
        library = {"find_site": find_site, "out": []}
        exec(compile("def look(*_):\n    out.append(find_site())\n", "/x/site-packages/a.py", "exec"), library)
        thread = threading.Thread(target=library["look"])
        thread.start()
        thread.join()
        assert library["out"] == [None]
        assert SiteResolver({}, None, None).resolve(None) is None

    def test_functions_alike_in_two_files_are_two_sites(self):
        source = "def f(find):\n    return find()\n"
        first, second = {}, {}
        exec(compile(source, "/a/first.py", "exec"), first)
        exec(compile(source, "/a/second.py", "exec"), second)
        assert first["f"].__code__ == second["f"].__code__  # as Python compares them
        assert first["f"](find_site) == first["f"](find_site)
        assert first["f"](find_site) != second["f"](find_site)

    def test_source_checkout_of_torch(self, monkeypatch, tmp_path):
        monkeypatch.setattr(torch, "__path__", [str(tmp_path / "pytorch" / "torch")])
        assert not is_user_code(str(tmp_path / "pytorch" / "torch" / "nn" / "x.py"))
        assert is_user_code(str(tmp_path / "pytorch" / "torch_work" / "x.py"))

    def test_missing_source_gives_a_site_without_text(self):
        namespace = {"find": find_site}
        exec(compile("key = find()\n", "/nowhere/at/all.py", "exec"), namespace)
        site = SiteResolver({}, None, None).resolve(namespace["key"])
        assert (site.file, site.line, site.text, site.line_text) == ("/nowhere/at/all.py", 1, "", "")

    def test_magic_line_shows_what_was_typed(self):
        typed = "import math\n%time x.mul_(2)\n"
        file = "/tmp/ipykernel_9/9.py"
        ran = "import math\nget_ipython().run_line_magic('time', 'x.mul_(2)')\n"
        linecache.cache[file] = (len(ran), None, ran.splitlines(keepends=True), file)
        keys = []

        class Shell:
            def run_line_magic(self, _, line):
                exec(
                    compile("keys.append(find())", "<timed exec>", "exec"),
                    {"keys": keys, "find": lambda: find_site(2, frozenset({file}))},
                )

        library = {"Shell": Shell}
        exec(compile(ran, file, "exec"), {"get_ipython": library["Shell"]})
        site = SiteResolver({file: "In[1]"}, file, typed).resolve(keys[0])
        assert site.cell_line == 2

    def test_the_body_of_a_timed_cell(self):
        """IPython runs it under a name without source; its lines are placed as in the cell."""
        typed = "%%time\n%%autograd_watch\nx[0] = 1\ny = x.mul_(2)\n"
        file = "<timed exec>"
        [(_, written, _), (_, scaled, _)] = run_cell(
            "\n\nx[0] = 1\ny = x.mul_(2)\n",
            file=file,
            typed=typed,
            cached=False,
            keep={"fill_", "copy_", "mul_"},
            x=torch.ones(2),
        )
        assert (written.text, written.cell_line, written.file) == ("x[0] = 1", 3, "In[7]")
        assert (scaled.text, scaled.line_text, scaled.cell_line) == ("x.mul_(2)", "y = x.mul_(2)", 4)

    def test_reading_locals_keeps_nothing_alive(self):
        class Canary:
            pass

        def dies():
            canary = Canary()
            gone = weakref.ref(canary)
            assert sites.locals_of(sys._getframe())["canary"] is canary
            del canary
            return gone() is None

        def kept():
            mine = locals()
            value = 3
            read = sites.locals_of(sys._getframe())
            return read["value"] == value and read["mine"] is mine

        assert dies()
        assert kept()

    def test_import_needs_no_torch(self):
        code = "import sys, jupyter_inplace.record.source.sites; print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


@pytest.mark.parametrize("module", [nn.functional, nn.modules.module, sites, textwrap])
def test_every_call_of_a_file(module):
    """The text of a call is what stands between its columns, and is Python."""
    lines = linecache.getlines(module.__file__)
    resolver = SiteResolver({}, None, None)
    waiting = [compile("".join(lines), module.__file__, "exec")]
    seen = 0
    while waiting:
        code = waiting.pop()
        waiting += [constant for constant in code.co_consts if hasattr(constant, "co_code")]
        for offset in range(0, len(code.co_code), 2):
            if dis.opname[code.co_code[offset]] not in {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "STORE_SUBSCR"}:
                continue
            key = sites.site_key(code, offset)
            site = resolver.resolve(key)
            seen += 1
            assert site.text
            if site.line == site.end_line:
                assert lines[site.line - 1][site.column : site.end_column] == site.text
            header = site.text.startswith(("with ", "for ", "def ", "class "))
            ast.parse(f"{site.text}: pass" if header else site.text)
            names = (*written_names(site), *argument_names(site), *resolver.assigned_names(key))
            assert all(isinstance(ast.parse(name).body[0], ast.Expr) for name in names)
    assert seen > 50


class TestNames:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("K.diagonal().add_(1e-2)", "K"),
            ("x.data *= 10", "x"),
            ("x.data.mul_(2)", "x"),
            ("h.detach().zero_()", "h"),
            ("self.bank[:, a:b] = v", "self.bank"),
            ("plane.mul_(sd).add_(mu)", "plane"),
            ("out[i] = v", "out"),
            ("x[:, :, i] += self.conv(x)", "x"),
            ("p.data.clamp_(-1, 1)", "p"),
            ("F.relu_(h)", "h"),
            ("torch.relu_(h)", "h"),
            ("nn.init.normal_(w)", "w"),
            ("normal_(w)", "w"),
            ("F.dropout(h, inplace=True)", "h"),
            ("F.dropout(h, 0.5, True, True)", "h"),
            ("nn.ReLU(inplace=True)(h)", "h"),
            ("torch.add(a, b, out=buf)", "buf"),
            ('losses["seg"].mul_(2)', 'losses["seg"]'),
            ("theta.grad.zero_()", "theta.grad"),
            ("model.encoder[0].weight.mul_(2)", "model.encoder[0].weight"),
            ("table.weight.data[evicted] = 0.01", "table.weight"),
            ("x.unbind(0)[0].mul_(2)", "x"),
            ("x.__setitem__(0, 1)", "x"),
            ("y = x.mul_(2)", "x"),
            ("model(x)", None),
            ("opt.step()", None),
            ("F.dropout(h)", None),
            ("next(net.parameters()).data.mul_(2)", None),
            ("nn.utils.clip_grad_norm_(ps, 1.0)", None),
            ("for p in ps", None),
            ("", None),
        ],
    )
    def test_written_name(self, text, name):
        assert written_name(text) == name

    def test_an_index_may_be_a_lists(self):
        assert written_names("rows[0] += 1") == ("rows", "rows[0]")
        assert written_names("rows[0].mul_(2)") == ("rows[0]", "rows")
        assert written_names("nnf.relu_(h)") == ("nnf", "h")

    def test_argument_names(self):
        assert argument_names('torch.einsum("nc,ck->nk", q, self.bank)') == ("q", "self.bank")
        assert argument_names("h * torch.sigmoid(h)") == ("h",)
        assert argument_names("logit.sigmoid()") == ("logit",)
        assert argument_names("y = F.linear(x, w.t(), bias=b)") == ("x", "w", "b")

    @pytest.mark.parametrize(
        ("source", "op", "names"),
        [
            ("prob = x.sigmoid()", "sigmoid", ("prob",)),
            ("a = b = x.sigmoid()", "sigmoid", ("a", "b")),
            ("a, b = x.sigmoid(), x.exp()", "exp", ("b",)),
            ("z = x.sigmoid().sum()", "sigmoid", ()),
            ("z = (s := x.sigmoid()).sum()", "sigmoid", ("s",)),
            ("box.t = x.sigmoid()", "sigmoid", ("box.t",)),
            ("x += 1", "add_", ("x",)),
            ("x.sigmoid()", "sigmoid", ()),
            ("v: object = x.sigmoid()", "sigmoid", ("v",)),
        ],
    )
    def test_assigned_names(self, source, op, names):
        file = "/tmp/ipykernel_1/names.py"
        linecache.cache[file] = (len(source), None, [source + "\n"], file)
        keys = []

        class Recorder(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                if func._schema.name == f"aten::{op}":
                    keys.append(find_site(2))
                return func(*args, **(kwargs or {}))

        box = type("Box", (), {})()
        with Recorder():
            exec(compile(source, file, "exec"), {"x": torch.ones(2), "box": box})
        assert SiteResolver({}, file, source).assigned_names(keys[0]) == names

"""What the person types, and what a cell then does, with a watch that only notes what it is asked."""

from __future__ import annotations

import re

import pytest
from IPython.core.completer import provisionalcompleter


def test_the_watch_gets_what_the_line_says(shell, fake):
    ran = shell.run("""%%autograd_watch loss1 losses["seg"] -r rep --fingerprint all --gradients\nx = 1\nx + 1""")
    assert ran.result.result == 2
    (watch,) = fake.made
    assert watch.tasks == ("loss1", 'losses["seg"]')
    assert watch.keywords["fingerprint"] == "all"
    assert watch.keywords["gradients"] is True
    assert watch.log == ["start", "stop"]
    assert shell.ns["rep"] is watch


def test_words_in_quotes(shell, fake):
    shell.run("""%%autograd_watch losses['seg head'] heads[0].loss "self.loss"\nx = 1""")
    assert fake.made[0].tasks == ("losses['seg head']", "heads[0].loss", "self.loss")


def test_options_left_out(shell, fake):
    shell.run("%%autograd_watch\nx = 1")
    (watch,) = fake.made
    assert watch.tasks == ()
    assert watch.keywords["fingerprint"] == "exported"
    assert watch.keywords["gradients"] is None


def test_the_cell_is_the_text_as_typed(shell, fake):
    source = "\n\n  %%autograd_watch   -q \n  # é\n  !true\n  x = '%%autograd_watch'\n"
    shell.run("1")
    shell.run(source)
    cell = fake.made[0].keywords["cell"]
    assert cell.source == source
    assert cell.execution_count == 2
    assert fake.made[0].keywords["labels"][fake.made[0].keywords["cell_file"]] == "In[2]"


def test_lines_count_as_the_editor_counts_them(shell, fake):
    shell.run("\n\n%%autograd_watch\nimport inspect\nline = inspect.currentframe().f_lineno")
    assert shell.ns["line"] == 5


def test_the_frame_has_the_file_that_the_watch_was_told(shell, fake):
    shell.run("%%autograd_watch\nimport inspect\nfile = inspect.currentframe().f_code.co_filename")
    assert shell.ns["file"] == fake.made[0].keywords["cell_file"]


def test_the_handle_is_bound_before_the_cell_runs(shell, fake):
    shell.run("%%autograd_watch -r rep\nseen = rep.report")
    assert shell.ns["seen"] is None
    assert shell.ns["rep"].report.verdict == "harmless"


def test_an_error_fails_the_cell_and_reaches_the_watch(shell, fake):
    ran = shell.run("%%autograd_watch -r rep\nx = 1\nraise ValueError('mine')")
    assert isinstance(ran.result.error_in_exec, ValueError)
    assert fake.made[0].error is ran.result.error_in_exec
    assert shell.ns["rep"].report is not None
    assert ran.out.count("Traceback (most recent call last)") == 1
    assert ran.out.count("ValueError: mine") == 1
    assert "3 raise ValueError('mine')" in ran.out
    assert ran.out.index("ValueError: mine") < ran.out.index("harmless")


def test_a_wrong_option_is_one_line_and_the_cell_does_not_run(shell, fake):
    ran = shell.run("%%autograd_watch --bogus\nx_ran = 1")
    assert "x_ran" not in shell.ns
    assert ran.err.startswith("UsageError: ")
    assert ran.err.count("\n") == 1
    assert "--bogus" in ran.err
    assert ran.out == ""
    assert not ran.result.success
    assert fake.made == []
    assert shell.run("%%autograd_watch\nx_ran = 1").result.success


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--fingerprint some", "some"),
        ("--verify-seconds soon", "soon"),
        ("--verify-seconds -1", "-1"),
        ("--result 1x", "1x"),
        ("--result class", "class"),
        ("--gradients --no-gradients", "--no-gradients"),
        ("--verify --no-verify", "--no-verify"),
        ("--save no/such/folder/r.json", "no/such/folder"),
        ("losses['a", "losses['a"),
        ("--result 'a", "'a"),
        ('seg["', 'seg["'),
        ("on", "%autograd_watch on"),
    ],
)
def test_wrong_words_come_back_in_the_error(shell, fake, line, said):
    ran = shell.run(f"%%autograd_watch {line}\nx_ran = 1")
    assert ran.err.startswith("UsageError: ")
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert "x_ran" not in shell.ns


def test_help_answers_and_the_cell_does_not_run(shell, fake):
    for cell in ("%%autograd_watch --help", "%%autograd_watch -h\nx_ran = 1"):
        ran = shell.run(cell)
        assert ran.result.success
        assert "--fingerprint" in ran.out
        assert "x_ran" not in shell.ns
    assert fake.made == []


def test_an_empty_body_is_a_usage_error(shell, fake):
    ran = shell.run("%%autograd_watch\n\n  \n")
    assert ran.err.startswith("UsageError: %%autograd_watch: there is no cell below it")
    assert not ran.result.success


def _unnumbered(traceback: str) -> str:
    return re.sub(r"In\[\d+\]|<ipython-input-.*?>", "the cell", traceback)


def test_a_syntax_error_is_as_without_the_magic(shell, bare, fake):
    watched = shell.run("%%autograd_watch\nx = = 1")
    plain = shell.run("#\nx = = 1")
    assert isinstance(watched.result.error_before_exec, SyntaxError)
    assert _unnumbered(watched.out) == _unnumbered(plain.out)
    assert fake.made == []


def test_a_semicolon_mutes_the_last_expression(shell, fake):
    assert "Out[" in shell.run("%%autograd_watch -q\n41 + 1").out
    assert shell.run("%%autograd_watch -q\n41 + 1;").out == ""


def test_quiet_shows_nothing(shell, fake):
    fake.finds = "breaks"
    assert shell.run("%%autograd_watch -q\nx = 1").out == ""


def test_the_report_is_shown_below(shell, fake):
    fake.finds = "breaks"
    assert "a breaks cell." in shell.run("%%autograd_watch\nx = 1").out


def test_top_level_await(shell, fake):
    ran = shell.run("%%autograd_watch\nimport asyncio\nawait asyncio.sleep(0, 'slept')")
    assert ran.result.result == "slept"
    assert fake.made[0].log == ["start", "stop"]


def test_lines_with_per_cent_and_exclamation_mark(shell, fake):
    ran = shell.run("%%autograd_watch -q\nfiles = !echo one\n%who_ls str\n!echo two")
    assert shell.ns["files"] == ["one"]
    assert ran.result.success


@pytest.mark.parametrize("outer", ["%%time", "%%capture captured", "%%prun -q -T nowhere.txt"])
def test_below_another_magic(shell, fake, outer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shell.run(f"{outer}\n%%autograd_watch\nimport inspect\nline = inspect.currentframe().f_lineno\nraise KeyError(1)")
    (watch,) = fake.made
    assert watch.log == ["start", "stop"]
    assert watch.keywords["cell"].source.startswith("%%")
    assert watch.keywords["labels"][watch.keywords["cell_file"]] == "In[1]"
    assert shell.ns["line"] == 4
    assert shell.ip.showtraceback.__self__ is shell.ip


@pytest.mark.parametrize("inner", ["%%time", "%%capture captured", "%%prun -q -T nowhere.txt"])
def test_above_another_magic(shell, fake, inner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shell.run(f"%%autograd_watch\n{inner}\nimport inspect\nframe = inspect.currentframe()\nx = 1")
    assert fake.made[0].log == ["start", "stop"]
    assert shell.ns["x"] == 1
    if "capture" not in inner:
        assert shell.ns["frame"].f_code.co_filename == fake.made[0].keywords["cell_file"]


def test_timeit_watches_once(shell, fake):
    ran = shell.run("%%timeit -n3 -r2\n%%autograd_watch\nx = 1")
    assert ran.result.success
    assert len(fake.made) == 1
    assert fake.made[0].log == ["start", "stop"]


def test_cells_run_by_the_cell_do_not_end_its_watch(shell, fake):
    shell.run(
        "%%autograd_watch\nip = get_ipython()\nip.run_cell('y = 2')\nip.run_cell('')\nlog = list(w.log)", silent=False
    )
    shell.run("%%autograd_watch -r w\nip.run_cell('y = 2')\nip.run_cell('')\nlog = list(w.log)")
    assert shell.ns["log"] == ["start"]
    assert fake.made[-1].log == ["start", "stop"]


def test_a_silent_request(shell, fake):
    shell.run("%%autograd_watch -r w\nx = 1", silent=True, store_history=False)
    assert fake.made[0].log == ["start", "stop"]
    shell.run("%%autograd_watch -r w\n1/0", silent=True, store_history=False)
    assert isinstance(fake.made[1].error, ZeroDivisionError)


def test_system_exit_and_interrupt_end_the_watch(shell, fake):
    for raised in ("KeyboardInterrupt", "SystemExit"):
        shell.run(f"%%autograd_watch -q\nraise {raised}")
        assert type(fake.made[-1].error).__name__ == raised
        assert fake.made[-1].log == ["start", "stop"]


def test_interrupt_while_the_report_is_made(shell, fake, monkeypatch):
    def stop(self, error):
        self.log.append("stop")
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "stop", stop)
    ran = shell.run("%%autograd_watch\n40 + 2")
    assert ran.result.success
    assert ran.result.result == 42
    assert ran.err == "autograd_watch: interrupted; no report for this cell\n"
    assert shell.run("%%autograd_watch\n40 + 2").result.success


def test_a_fault_of_the_watch_is_one_line(shell, fake, monkeypatch):
    def fail(self, *_):
        raise RuntimeError("ours")

    monkeypatch.setattr(fake, "start", fail)
    ran = shell.run("%%autograd_watch\n40 + 2")
    assert ran.result.result == 42
    assert ran.err.count("\n") == 1
    assert "RuntimeError('ours')" in ran.err


def test_a_watch_that_cannot_begin_is_said_in_one_line(shell, fake):
    fake.fault = RuntimeError("a torch\nof another kind")
    ran = shell.run("%%autograd_watch\n40 + 2")
    assert ran.result.result == 42
    assert ran.err == "autograd_watch: not watched: RuntimeError: a torch of another kind\n"


def test_save(shell, fake, tmp_path):
    from jupyter_inplace.report import load

    shell.run(f"%%autograd_watch -q --save '{tmp_path}/my report.json'\nimport os\nos.chdir('/')")
    assert load(tmp_path / "my report.json").verdict == "harmless"


def test_a_cell_that_is_called_by_name(shell, fake):
    """`run_cell_magic` is what other code calls; no cell begins with our line then."""
    value = shell.ip.run_cell_magic("autograd_watch", "-r rep --no-gradients", "a = 3\na + 1\n")
    assert value == 4
    assert shell.ns["a"] == 3
    (watch,) = fake.made
    assert watch.keywords["gradients"] is False
    assert watch.log == ["start", "stop"]
    ran = shell.run("get_ipython().run_cell_magic('autograd_watch', '-q', '1/0')")
    assert isinstance(fake.made[1].error, ZeroDivisionError)
    assert ran.out.count("ZeroDivisionError: ") == 1
    assert "jupyter_inplace" not in ran.out


class TestFollowing:
    def test_on_watches_following_cells_and_is_silent_while_they_are_clean(self, shell, fake):
        assert shell.run("%autograd_watch on").result.success
        assert fake.made == []
        assert shell.run("x = 1").out == ""
        fake.finds = "breaks"
        assert "a breaks cell." in shell.run("x = 2").out
        assert [watch.log for watch in fake.made] == [["start", "stop"]] * 2
        assert fake.made[1].keywords["cell"].source == "x = 2"
        assert fake.made[1].keywords["cell"].execution_count == 3

    def test_on_is_not_silent_where_it_is_not_known(self, shell, fake):
        shell.run("%autograd_watch on")
        fake.finds = "unknown"
        assert "a unknown cell." in shell.run("x = 1").out

    def test_the_file_is_the_cells_own(self, shell, fake):
        shell.run("%autograd_watch on")
        shell.run("import inspect\nfile = inspect.currentframe().f_code.co_filename")
        assert shell.ns["file"] == fake.made[0].keywords["cell_file"]

    def test_lines_count_as_the_editor_counts_them(self, shell, fake):
        shell.run("%autograd_watch on")
        for above in ("\n\n", "%%time\n\n"):
            shell.run(f"{above}import inspect\nframe = inspect.currentframe()\nline = inspect.currentframe().f_lineno")
            assert shell.ns["line"] == 5
            assert shell.ns["frame"].f_code.co_filename == fake.made[-1].keywords["cell_file"]

    def test_off(self, shell, fake):
        fake.finds = "breaks"
        shell.run("%autograd_watch on")
        assert shell.run("%autograd_watch off").out == ""
        shell.run("x = 1")
        assert len(fake.made) == 1
        assert fake.made[0].log == ["start", "stop"]

    def test_status(self, shell, fake):
        assert "is off" in shell.run("%autograd_watch status").out
        shell.run("%autograd_watch on --fingerprint off")
        said = shell.run("%autograd_watch status").out
        assert "is on" in said
        assert "fingerprint=off" in said

    def test_a_cell_of_its_own_goes_first(self, shell, fake):
        shell.run("%autograd_watch on")
        ran = shell.run("%%autograd_watch loss\nx = 1")
        assert [watch.tasks for watch in fake.made] == [(), ("loss",)]
        assert all(watch.log == ["start", "stop"] for watch in fake.made)
        assert "a harmless cell." in ran.out

    @pytest.mark.parametrize("word", ["maybe", "on --bogus", "on --save x.json"])
    def test_wrong_words(self, shell, fake, word):
        ran = shell.run(f"%autograd_watch {word}")
        assert ran.err.startswith("UsageError: ")
        assert word.split()[-1] in ran.err or "--save" in ran.err


class TestInstalling:
    def test_nothing_is_left_behind(self, bare, fake):
        from jupyter_inplace import magic

        def state():
            ip = bare.ip
            return (
                list(ip.input_transformers_cleanup),
                {kind: sorted(names) for kind, names in ip.magics_manager.magics.items()},
                {event: list(found) for event, found in ip.events.callbacks.items()},
                sorted(k for k in vars(ip) if k not in {"execution_count", "_trait_values"}),
                sorted(vars(ip.magics_manager.user_magics)),
            )

        before = state()
        magic.load(bare.ip)
        magic.load(bare.ip)
        bare.run("%autograd_watch on")
        bare.run("%%autograd_watch -q\n1/0")
        magic.unload(bare.ip)
        magic.unload(bare.ip)
        after = state()
        bare.ip.__dict__.pop("last_execution_result", None)
        assert after[:3] == before[:3]
        assert after[4] == before[4]
        assert not [name for name in after[3] if "autograd" in name or name == "showtraceback"]
        assert "not found" in bare.run("%%autograd_watch\nx = 1").err
        assert bare.run("x = 2").result.success
        assert len(fake.made) == 2

    def test_loading_twice_watches_once(self, shell, fake):
        from jupyter_inplace import magic

        magic.load(shell.ip)
        shell.run("%%autograd_watch\nx = 1")
        assert len(fake.made) == 1

    def test_unloading_inside_a_watched_cell_ends_its_watch(self, bare, fake):
        from jupyter_inplace import magic

        magic.load(bare.ip)
        bare.ns["unload"] = lambda: magic.unload(bare.ip)
        assert bare.run("%%autograd_watch\nunload()\nx = 1").result.success
        assert fake.made[0].log == ["start", "stop"]

    def test_somebody_elses_showtraceback_comes_back(self, shell, fake):
        shown = []
        shell.ip.showtraceback = lambda *a, **k: shown.append(1)
        hook = shell.ip.showtraceback
        shell.run("%%autograd_watch -q\n1/0")
        assert shown == [1]
        assert shell.ip.showtraceback is hook
        del shell.ip.showtraceback

    def test_help_is_registered(self, shell):
        for kind in ("line", "cell"):
            assert "on|off|status" in shell.ip.magics_manager.magics[kind]["autograd_watch"].__doc__
        assert "--fingerprint" in shell.ip.magics_manager.magics["cell"]["autograd_watch"].__doc__
        with provisionalcompleter():
            found = [completion.text for completion in shell.ip.Completer.completions("%%autogr", 8)]
        assert found == ["%%autograd_watch"]

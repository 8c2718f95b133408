"""A program under the command line does what it does under Python alone: output, errors, exit status."""

import os
import signal
import subprocess
import sys

import pytest

PROGRAMS = {
    "argv": "import sys\nprint(sys.argv, sys.path[0], __name__, __file__, __spec__, __package__)\n",
    "argparse": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--lr', type=float)\nprint(p.parse_args())\n",
    "argparse_error": "import argparse\np = argparse.ArgumentParser()\np.add_argument('n', type=int)\np.parse_args()\n",
    "main_module": "import sys, pickle\nclass C: pass\nm = sys.modules['__main__']\nprint(m.C is C, m.__doc__, pickle.loads(pickle.dumps(C())).__class__ is C)\n",
    "raises": "def f():\n    return 1 / 0\n\nf()\n",
    "chained": "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('twice') from e\n",
    "syntax": "x = (1,\n",
    "exit_0": "import sys\nprint('bye')\nsys.exit()\n",
    "exit_5": "raise SystemExit(5)\n",
    "exit_text": "import sys\nsys.exit('no data')\n",
    "hook": "import sys\nsys.excepthook = lambda kind, value, tb: print('mine', kind.__name__, tb.tb_lineno)\nraise OSError('x')\n",
    "atexit": "import atexit\natexit.register(print, 'at exit')\nprint('end')\n",
    "future": "from __future__ import annotations\ndef f(x: Missing): pass\nprint(f.__annotations__)\n",
    "coding": "# -*- coding: latin-1 -*-\nprint(len('\xe9'))\n",
    "thread": "import threading, time\ndef f():\n    time.sleep(0.2)\n    print('late')\nthreading.Thread(target=f).start()\nprint('main is over')\n",
    "fork": "import os, sys\npid = os.fork()\nif pid == 0:\n    print('child', flush=True)\n    sys.exit(4)\nprint('status', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n",
    "fork_falls_through": "import os\npid = os.fork()\nif pid:\n    print('status', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\nelse:\n    print('child', flush=True)\n",
    "pool": "import multiprocessing as mp\ndef f(x): return x * x\nif __name__ == '__main__':\n    with mp.get_context('spawn').Pool(1) as p: print(p.map(f, [1, 2, 3]))\n",
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_alone(terminal, name):
    if "fork" in name and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    script = terminal.folder / "program.py"
    script.write_bytes(PROGRAMS[name].encode("latin-1" if name == "coding" else "utf-8"))
    words = ("program.py", "--lr", "0.5") if "argparse" in name or name == "argv" else ("program.py",)
    alone, watched = terminal.python(*words), terminal.watched("--quiet", *words)
    assert (watched.out, watched.err, watched.status) == (alone.out, alone.err, alone.status)


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (("-m", "tool", "-x", "1"), {"tool.py": "import sys\nprint(sys.argv, sys.path[0], __spec__.name, __package__)\n"}),
        (
            ("-m", "box.inner", "--help"),
            {"box/__init__.py": "print('box')\n", "box/inner.py": "from . import other\nimport sys\nprint(sys.argv, __package__)\n",
             "box/other.py": ""},
        ),
        (("-m", "box"), {"box/__init__.py": "", "box/__main__.py": "import sys\nprint(sys.argv, __name__, __package__)\n"}),
        (("-m", "bad"), {"bad/__init__.py": "import nothing_like_it\n", "bad/__main__.py": ""}),
        (("folder", "a"), {"folder/__main__.py": "import sys, near\nprint(sys.argv, sys.path[0], near.x)\n", "folder/near.py": "x = 1\n"}),
        (("sub/deep.py",), {"sub/deep.py": "import beside\nprint(beside.x)\n", "sub/beside.py": "x = 2\n"}),
    ],
)  # fmt: skip
def test_modules_and_folders_as_alone(terminal, words, files):
    for name, text in files.items():
        terminal.script(text, name)
    alone, watched = terminal.python(*words), terminal.watched("--quiet", *words)
    assert (watched.out, watched.status) == (alone.out, alone.status)
    # python -m tells of runpy's own frames above an import error
    assert watched.err.splitlines()[-1:] == alone.err.splitlines()[-1:]


def test_ends_by_the_signal_that_an_interrupt_is(terminal):
    text = "import os, signal, time\nprint('up', flush=True)\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    terminal.script(text)
    alone, watched = terminal.python("train.py"), terminal.watched("--quiet", "train.py")
    assert alone.status == -signal.SIGINT
    assert (watched.out, watched.err, watched.status) == (alone.out, alone.err, alone.status)


def test_a_program_without_torch_never_imports_it(terminal):
    terminal.script("import sys\nprint('torch' in sys.modules, 'IPython' in sys.modules)\n")
    ended = terminal.watched("train.py")
    assert ended.out == "False False\n"
    assert ended.err.strip() == "harmless: nothing to watch: no torch ran here."
    assert ended.status == 0


def test_a_pipe_that_is_closed_is_no_fault_of_ours(terminal):
    terminal.script("print('x' * 10)\n")
    command = f"{sys.executable} -m jupyter_inplace -q train.py | true"
    subprocess.run(command, shell=True, cwd=terminal.folder, check=True, timeout=60)

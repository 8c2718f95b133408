"""``%%px`` with ``%%autograd_watch`` inside: one report an engine, merged like ranks."""

from __future__ import annotations

import subprocess
import sys

SESSION = """\
import ipyparallel
from IPython.core.interactiveshell import InteractiveShell

from jupyter_inplace import Report
from jupyter_inplace.report.merge import merge

cluster = ipyparallel.Cluster(n=2, log_level=40)
client = cluster.start_and_connect_sync()
try:
    shell = InteractiveShell.instance()
    engines = client[:]
    engines.block = True
    engines.activate()
    shell.run_cell("%px %load_ext jupyter_inplace").raise_error()
    shell.user_ns["engines"] = engines
    shell.run_cell("engines.scatter('rank', [0, 1], flatten=True)").raise_error()
    cell = '''%%px
%%autograd_watch --result report
import torch
w = torch.ones(3, requires_grad=True)
h = torch.exp(w)
loss = h.sum()
if rank == 1:
    h.data.mul_(2)
loss.backward()
'''
    result = engines.execute(cell.partition("\\n")[2], silent=False, block=False)
    result.wait(60)
    shown = [[sorted(o["data"]) for o in outputs] for outputs in result.outputs]
    assert shown == [[["application/vnd.jupyter-inplace.v1+json", "text/html", "text/plain"]]] * 2, shown
    shell.run_cell(cell).raise_error()
    reports = [Report.from_dict(data) for data in engines.apply_sync(lambda: report.to_dict())]
    print([(r.rank, r.verdict) for r in reports])
    print([(m.note, m.site.text) for m in merge(reports).mutations if m.verdict != "harmless"])
finally:
    cluster.stop_cluster_sync()
"""


def test_one_panel_an_engine_and_one_merged_report(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", SESSION], cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("[(")]
    assert lines == ["[(0, 'harmless'), (1, 'corrupts')]", "[('on rank 1 only', 'h.data.mul_(2)')]"], ended.stderr[
        -3000:
    ]

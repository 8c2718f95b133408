"""One run of a cell in a sandbox: watched, with every gradient, its losses, and the values of variables at the end."""

from __future__ import annotations

from typing import Any

from jupyter_inplace.explain.window import Window
from jupyter_inplace.report.data import Cell
from jupyter_inplace.rewrite.proof.execute import RunnableCell


def run(state: Any, send: Any, *, source: str) -> None:
    """Run `source` on `state`; send one dictionary of plain data and arrays."""
    namespace: dict[str, Any] = state if isinstance(state, dict) else state.user_ns
    cell = RunnableCell(state, source)
    window = Window.open(
        gradients=True,
        cell=Cell(source=source),
        cell_file=cell.file,
        labels={cell.file: "In[0]"},
        namespace=lambda: namespace,
    )
    error: BaseException | None = None
    try:
        error = cell.run()
    finally:
        report = window.close(error)
    sessions = [one.session for one in window.companions.seen if hasattr(one, "session")]
    send(
        {
            "error": None if error is None else (type(error).__name__, str(error)),
            "verdict": report.verdict,
            "summary": report.summary,
            "calls": [_call(call) for session in sessions for call in session.calls],
            "variables": _variables(namespace) if sessions else {},
        }
    )


def _call(call: Any) -> dict[str, Any]:
    return {
        "losses": dict(call.losses),
        "gradients": {key: (call.vectors[key][0], call.vectors[key][1]) for key in call.vectors},
        "error": call.error,
    }


def _variables(namespace: dict[str, Any]) -> dict[str, Any]:
    """The values of the visible variables, by name."""
    import tensorflow as tf

    from jupyter_inplace.tensorflow.explain.names import TapeNames

    names = TapeNames([namespace])
    return {name: value.numpy() for name, value in names.named() if isinstance(value, tf.Variable)}

assert loud.verdict == "breaks"
assert {task.name: task.status for task in loud.tasks} == {"class_loss": "raises", "parity_loss": "ok"}
assert silent.verdict == "corrupts"
assert {task.name: task.status for task in silent.tasks} == {"class_loss": "wrong", "parity_loss": "ok"}
assert cured.verdict == "harmless"
data, new = runs["written through .data"], runs["a new tensor"]
assert data["class accuracy"] < 0.2  # a guess gets one in ten right
assert new["class accuracy"] > data["class accuracy"] + 0.3
assert min(data["parity accuracy"], new["parity accuracy"]) > 0.9
for run in runs.values():
    total = run["losses"].sum(1)
    assert total.isfinite().all()
    assert total[-50:].mean() < total[:50].mean() - 0.3
assert {conflict.node for conflict in loud.conflicts} == {"SigmoidBackward0", "AddmmBackward0"}

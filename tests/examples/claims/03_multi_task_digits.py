assert loud.verdict == "breaks"
assert {task.name: task.status for task in loud.tasks} == {"class_loss": "raises", "parity_loss": "ok"}
assert silent.verdict == "corrupts"
assert {task.name: task.status for task in silent.tasks} == {"class_loss": "wrong", "parity_loss": "ok"}
assert cured.verdict == "harmless"
for accuracy in ("class accuracy", "parity accuracy"):
    assert runs["a new tensor"][accuracy] > runs["written through .data"][accuracy] + 0.3, accuracy

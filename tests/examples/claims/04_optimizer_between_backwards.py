assert loud.verdict == "breaks"
assert {task.name: task.status for task in loud.tasks} == {"D_loss": "ok", "G_loss": "raises"}
statuses = {fix.title: fix.verification.status for fix in loud.fixes}
assert statuses["opt_D.step() below G_loss.backward()"] == "failed"
assert any("copies of its parameters" in title and status == "passed" for title, status in statuses.items())
assert any("preserve_saved" in title and status == "passed" for title, status in statuses.items())

assert detached.verdict == "harmless"
assert silent.verdict == "corrupts"
assert silent.error is None
rows = {row.leaf: row for row in silent.gradients if row.task == "G_loss"}
assert rows["G.weight"].status == "wrong"
assert rows["G.weight"].relative_difference > 0.5

assert reinforced.verdict == "breaks"
assert {task.name: task.status for task in reinforced.tasks} == {"critic_loss": "ok", "actor_loss": "raises"}
assert reordered.verdict == alternating.verdict == "harmless"
reference = {row.leaf: row.norm_reference for row in loud.gradients if row.task == "G_loss"}
torch.testing.assert_close(generator_gradient.item(), reference["G.weight"], rtol=1e-5, atol=0)
assert [None, None] in Out.values()  # detached: the generator gets no gradient

assert mixed.verdict == "mixes"
assert {(row.task, row.status) for row in mixed.gradients} == {("height_loss", "ok"), ("weight_loss", "ok")}
(row0,) = (row for row in mixed.gradients if row.task == "height_loss")
(row1,) = (row for row in mixed.gradients if row.task == "weight_loss")


def task_gradient(target, value):
    w = value.clone().requires_grad_()
    return torch.autograd.grad((x @ w - target).square().mean(), w)[0]


# Each row is right at the value that its task read, and their sum is what the program got.
first, second = task_gradient(heights, version0), task_gradient(weights, version1)
torch.testing.assert_close(first.norm().item(), row0.norm_as_run, rtol=1e-5, atol=0)
torch.testing.assert_close(second.norm().item(), row1.norm_as_run, rtol=1e-5, atol=0)
torch.testing.assert_close(first + second, as_run)
assert (as_run - at_0).norm() > 0.1
assert (as_run - at_1).norm() > 0.1
(write,) = (mutation for mutation in mixed.mutations if mutation.verdict == "mixes")
assert write.versions == (0, 1)

assert meant.verdict == "harmless"
assert deeper.verdict == "breaks"
assert {(row.task, row.leaf, row.status) for row in deeper.gradients} == {
    ("height_loss", "encoder", "raises"),
    ("height_loss", "w", "raises"),
    ("weight_loss", "encoder", "ok"),
    ("weight_loss", "w", "ok"),
}
assert "is at version 1; expected version 0" in deeper.error.message
proved = [fix for fix in deeper.fixes if fix.verification.status == "passed"]
assert proved
assert {fix.verification.verdict for fix in proved} == {"mixes"}

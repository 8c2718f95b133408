for report in (refused, shared):
    assert report.verdict == "rejected"
    assert {fix.reading for fix in report.fixes if fix.verification.status == "passed"} == {"update", "copy"}
assert update[0] == copy[0]
assert update[1].tolist() == [1 + 10, 2 + 20]
assert copy[1].tolist() == [1 + 2 * 10, 2 + 2 * 20]
assert after_write == []
assert calls == [("gradient", [6.0, 12.0])]
assert versions == [0, 1]
assert halved.verdict == "harmless"
assert x.grad.item() == 2.0  # of x * x at 1
assert z.item() == 1.0
assert (True, None) in Out.values()  # the refused write changed nothing, and no gradient came
# Both readings of the refused writes: the first example's have one gradient, the second's have two.
for report, norms in (
    (refused, {"update": 10**0.5, "copy": 10**0.5}),
    (shared, {"update": (10**2 + 20**2) ** 0.5, "copy": (20**2 + 40**2) ** 0.5}),
):
    for fix in report.fixes:
        if fix.verification.status == "passed":
            row = fix.verification.gradients[0]  # of the task that reads what was written
            assert row.task in ("y", "loss2")
            assert abs(row.norm_as_run - norms[fix.reading]) < 1e-4

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

for name, report in reports.items():
    assert report.verdict == "corrupts", name
    assert report.error is None, name
    assert max(row.relative_difference or 0 for row in report.gradients) > 0.05, name
assert size_gradient.tolist() == [0.0] * 4
expected = torch.autograd.grad(w.square().sum(), w)[0]
assert torch.equal(expected, 2 * w)

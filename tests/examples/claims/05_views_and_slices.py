assert slices.verdict == stacked.verdict == one_row.verdict == "harmless"
assert slots.verdict == "breaks"
assert not any(mutation.value_changed for mutation in slots.mutations if mutation.verdict == "breaks")
assert "with equal values" in slots.summary
assert jitter.verdict == "breaks"
assert pieces.verdict == expanded.verdict == "rejected"
assert x.grad[0].tolist() == [40.0, 40.0, 40.0]
# By the definition of a derivative: the loss is linear in x[0], so one difference is exact up to rounding.
sums = []
for base in (torch.zeros(3), torch.tensor([1.0, 0.0, 0.0])):
    rows = (base * 1.0).expand(4, 3)
    rows[0].mul_(10)
    sums.append(rows.sum().item())
assert sums[1] - sums[0] == 40.0
assert "CopySlices" in history
z = torch.ones(4, 3, requires_grad=True)
filled = z * 2
filled[0] = 0
filled.sum().backward()
assert z.grad.tolist() == [[0.0] * 3] + [[2.0] * 3] * 3
assert {conflict.node for conflict in jitter.conflicts} == {"ExpBackward0"}

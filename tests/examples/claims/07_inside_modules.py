assert fine.verdict == masked.verdict == "harmless"
assert {conflict.module for conflict in gated.conflicts} == {"model.encoder.layers.1"}
assert {conflict.node for conflict in residual.conflicts} == {"NativeLayerNormBackward0"}
assert {(conflict.saved_site.text, conflict.saved_as) for conflict in recurrent.conflicts} == {("head(h)", "mat1")}
assert gated.verdict == residual.verdict == dropped.verdict == recurrent.verdict == "breaks"

# Dropout behind ReLU: with torch's check out of the way (identity hooks do that) the gradient is that of the out-of-place cell.
gradients = []
for inplace in (True, False):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5, inplace=inplace), nn.Linear(16, 10))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        net(images.flatten(1)).square().mean().backward()
    gradients.append(net[0].weight.grad)
assert torch.equal(*gradients)

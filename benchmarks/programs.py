"""Three ordinary training steps, written as a notebook cell would hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from jupyter_inplace.report import Cell

CELL_FILE = "<ipython-input-1-overhead>"

_STEP = """def step():
    optimizer.zero_grad()
    out = model(data)
    loss = F.cross_entropy(out, labels)
    loss.backward()
    optimizer.step()
"""


class Program:
    """A training step, its cell, and how many steps a table needs of it.

    :param build: makes the names that the cell's code finds: model, optimizer, data, labels.
    :param steps: timed steps per mode.
    :param block: steps timed in one go before the next mode has its turn.
    """

    def __init__(self, name: str, build: Callable[[], dict[str, Any]], steps: int, block: int) -> None:
        self.name, self.steps, self.block = name, steps, block
        torch.manual_seed(0)
        self.namespace: dict[str, Any] = {"torch": torch, "F": nn.functional, "__name__": "__main__", **build()}
        self.cell = Cell(source=_STEP)
        exec(compile(_STEP, CELL_FILE, "exec"), self.namespace)  # noqa: S102 (the benchmark's own text)
        self.step: Callable[[], None] = self.namespace["step"]


def _mlp() -> dict[str, Any]:
    layers: list[nn.Module] = []
    for _ in range(6):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    return {
        "model": model,
        "optimizer": torch.optim.Adam(model.parameters(), lr=1e-3),
        "data": torch.randn(32, 64),
        "labels": torch.randint(0, 10, (32,)),
    }


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 256, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x).mean(1))


def _transformer() -> dict[str, Any]:
    model = _Encoder()
    return {
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-4),
        "data": torch.randn(16, 64, 128),
        "labels": torch.randint(0, 10, (16,)),
    }


class _Block(nn.Module):
    """The residual block of ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.down is None else self.down(x)
        return self.relu(out)


def _resnet() -> dict[str, Any]:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_Block(inputs, outputs, stride), _Block(outputs, outputs, 1)]
        inputs = outputs
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9),
        "data": torch.randn(4, 3, 96, 96),
        "labels": torch.randint(0, 10, (4,)),
    }


PROGRAMS: dict[str, Callable[[], Program]] = {
    "MLP, 7 layers of 64, Adam": lambda: Program("MLP, 7 layers of 64, Adam", _mlp, 300, 25),
    "transformer encoder, 4 layers, AdamW": lambda: Program(
        "transformer encoder, 4 layers, AdamW", _transformer, 45, 3
    ),
    "ResNet-18, SGD": lambda: Program("ResNet-18, SGD", _resnet, 45, 3),
}

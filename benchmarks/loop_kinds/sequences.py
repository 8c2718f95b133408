"""Recurrences and sequences: a round is a step in time, and one backward runs through all of them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.loop_kinds.loop import Loops, Run

_loops = Loops()


@_loops("recurrent cell over columns of a numpy array", 400)
def _columns() -> Run:
    lin = nn.Linear(1, 8)
    rng = np.random.default_rng(0)

    def run(count: int) -> None:
        data = rng.random((5, count), dtype=np.float32)
        x = torch.from_numpy(data)
        h = torch.zeros(5, 8)
        for column in x.split(1, dim=1):
            h = torch.tanh(lin(column) + h)
        h.sum().backward()

    return run


@_loops("LSTMCell in a loop", 400)
def _lstm_cell() -> Run:
    cell, head = nn.LSTMCell(1, 51), nn.Linear(51, 1)
    signal = torch.rand(5, 1)

    def run(count: int) -> None:
        h, c, out = torch.zeros(5, 51), torch.zeros(5, 51), []
        for _ in range(count):
            h, c = cell(signal, (h, c))
            out.append(head(h))
        F.mse_loss(torch.cat(out, 1), torch.ones(5, count)).backward()

    return run


@_loops("GRUCell in a loop", 400)
def _gru_cell() -> Run:
    cell, x = nn.GRUCell(16, 32), torch.rand(5, 16)

    def run(count: int) -> None:
        h = torch.zeros(5, 32)
        for _ in range(count):
            h = cell(x, h)
        h.pow(2).mean().backward()

    return run


@_loops("out[t] = h in a recurrence", 400)
def _slots() -> Run:
    w_in, w_h = nn.Linear(4, 16), nn.Linear(16, 16)
    x = torch.rand(5, 4)

    def run(count: int) -> None:
        h, out = torch.zeros(5, 16), torch.zeros(count, 5, 16)
        for t in range(count):
            h = torch.tanh(w_in(x) + w_h(h))
            out[t] = h
        out.pow(2).mean().backward()

    return run


@_loops("sequence to sequence, teacher forcing", 30)
def _seq2seq() -> Run:
    embed, encoder = nn.Embedding(20, 16), nn.GRU(16, 32, batch_first=True)
    decoder, out = nn.GRUCell(16, 32), nn.Linear(32, 20)
    model = nn.ModuleList([embed, encoder, decoder, out])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run(count: int) -> None:
        for step in range(count):
            source, target = torch.randint(20, (8, 10)), torch.randint(20, (8, 10))
            optimizer.zero_grad()
            _, hidden = encoder(embed(source))
            hidden, token, loss = hidden.squeeze(0), torch.zeros(8, dtype=torch.long), torch.zeros(())
            for t in range(10):
                hidden = decoder(embed(token), hidden)
                logits = out(hidden)
                loss = loss + F.cross_entropy(logits, target[:, t])
                token = target[:, t] if step % 2 == 0 else logits.argmax(1)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return run


@_loops("truncated backpropagation through an LSTM", 60)
def _truncated() -> Run:
    embed, lstm, head = nn.Embedding(50, 32), nn.LSTM(32, 32, 2), nn.Linear(32, 50)
    model = nn.ModuleList([embed, lstm, head])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data, target = torch.randint(50, (12, 4)), torch.randint(50, (48,))

    def run(count: int) -> None:
        hidden = None
        for _ in range(count):
            optimizer.zero_grad()
            if hidden is not None:
                hidden = tuple(h.detach() for h in hidden)
            out, hidden = lstm(embed(data), hidden)
            F.cross_entropy(head(out).view(-1, 50), target).backward()
            optimizer.step()

    return run


SEQUENCES = tuple(_loops.found)

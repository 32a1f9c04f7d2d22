"""Hand-written networks over sequences: recurrent, convolutional, attentive."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Conformer(nn.Module):
    """Half feed-forwards around attention and a convolution module (Gulati et al., 2020)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.second = _feed_forward(width), _feed_forward(width)
        self.norm, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 4, batch_first=True)
        self.conv_norm, self.widen = nn.LayerNorm(width), nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.batch_norm, self.narrow = nn.BatchNorm1d(width), nn.Conv1d(width, width, 1)
        self.final, self.head = nn.LayerNorm(width), nn.Linear(width, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + 0.5 * self.first(x)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = F.glu(self.widen(self.conv_norm(x).transpose(1, 2)), dim=1)
        x = x + self.narrow(F.silu(self.batch_norm(self.depthwise(y)))).transpose(1, 2)
        return self.head(self.final(x + 0.5 * self.second(x)))


def _feed_forward(width: int, hidden: int = 64) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width))


class WaveNet(nn.Module):
    """Gated causal convolutions with residual and skip streams (van den Oord et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, 16, 1)
        self.gates = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=2**i) for i in range(4))
        self.residuals = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(4))
        self.skips = nn.ModuleList(nn.Conv1d(16, 24, 1) for _ in range(4))
        self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(24, 32, 1), nn.ReLU(), nn.Conv1d(32, 20, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        total = torch.zeros((), device=x.device)
        for i, (gate, residual, skip) in enumerate(zip(self.gates, self.residuals, self.skips, strict=True)):
            filtered, gated = gate(F.pad(x, (2**i, 0))).chunk(2, dim=1)
            y = torch.tanh(filtered) * torch.sigmoid(gated)
            total = total + skip(y)
            x = x + residual(y)
        return self.end(total)


class Chomp(nn.Module):
    """Drops what a causal padding added at the end."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, : -self.size].contiguous()


def _tcn(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate([(4, 16), (16, 16), (16, 24)]):
        layers += [norm(nn.Conv1d(a, b, 3, padding=2 * 2**i, dilation=2**i)), Chomp(2 * 2**i), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 5))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(8, 16, batch_first=True, **options)
        width = (options.get("proj_size") or 16) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


class PackedTagger(nn.Module):
    """Sentences of different lengths, packed."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 12, padding_idx=0)
        self.rnn, self.head = nn.LSTM(12, 16, bidirectional=True, batch_first=True), nn.Linear(32, 7)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.table(ids), lengths, batch_first=True, enforce_sorted=False
        )
        out, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(out)


class Cells(nn.Module):
    """A loop over time with GRUCell and LSTMCell."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 16
        self.gru, self.lstm, self.head = nn.GRUCell(8, 16), nn.LSTMCell(16, 12), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.new_zeros(x.shape[0], self.hidden)
        state = None
        outputs = []
        for step in x.unbind(1):
            h = self.gru(step, h)
            state = self.lstm(h, state)
            outputs.append(self.head(state[0]))
        return torch.stack(outputs, 1)


class AttentiveRNN(nn.Module):
    """A decoder state attends over encoder states (Bahdanau et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.cell = nn.GRU(8, 16, batch_first=True, bidirectional=True), nn.GRUCell(32, 24)
        self.query, self.key, self.score = nn.Linear(24, 20), nn.Linear(32, 20), nn.Linear(20, 1)
        self.start, self.head = nn.Linear(32, 24), nn.Linear(24, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        memory, _ = self.encoder(x)
        keys, h, outputs = self.key(memory), torch.tanh(self.start(memory[:, -1])), []
        for _ in range(3):
            weights = self.score(torch.tanh(keys + self.query(h)[:, None])).softmax(1)
            h = self.cell((weights * memory).sum(1), h)
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


class SpeechCTC(nn.Module):
    """Convolutions over a spectrogram, channels and bins folded, then LSTMs: log-probabilities per frame."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Hardtanh(0, 20),
            nn.Conv2d(8, 12, 3, stride=(2, 1), padding=1), nn.BatchNorm2d(12), nn.Hardtanh(0, 20),
        )  # fmt: skip
        self.rnn = nn.LSTM(12 * 8, 20, num_layers=2, bidirectional=True)
        self.head = nn.Linear(40, 29)

    def forward(self, spectrogram: torch.Tensor) -> torch.Tensor:
        x = self.conv(spectrogram)
        b, c, f, t = x.size()
        x = x.view(b, c * f, t).permute(2, 0, 1)
        return F.log_softmax(self.head(self.rnn(x)[0]), dim=-1)


class ConvLSTM(nn.Module):
    """Gates by one convolution over input and state (Shi et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.gates, self.head = nn.Conv2d(3 + 8, 4 * 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        b, steps, _, height, width = clip.shape
        h = torch.zeros(b, self.width, height, width, device=clip.device)
        c = torch.zeros_like(h)
        for step in range(steps):
            i, f, o, g = torch.chunk(self.gates(torch.cat([clip[:, step], h], 1)), 4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


class MinimalLSTM(nn.Module):
    """Gates cut out of one product by literal-free slices of `self.hidden`."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 16
        self.x, self.h, self.head = nn.Linear(8, 64), nn.Linear(16, 64), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.hidden
        h = c = x.new_zeros(x.size(0), n)
        for step in range(x.size(1)):
            z = self.x(x[:, step]) + self.h(h)
            i, f, o, g = z[:, :n], z[:, n : 2 * n], z[:, 2 * n : 3 * n], z[:, 3 * n :]
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)


class Highway(nn.Module):
    """Carry and transform gates (Srivastava et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.head = nn.Linear(8, 32), nn.Linear(32, 4)
        self.gates = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
        self.paths = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        for gate, path in zip(self.gates, self.paths, strict=True):
            t = gate(x).sigmoid()
            x = t * F.relu(path(x)) + (1 - t) * x
        return self.head(x)


_SERIES = (2, 6, 8)


def _series(make: Callable[[], nn.Module], *shape: int) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (make(), torch.randn(shape or _SERIES))


def _recurrent(kind: type[nn.RNNBase], **options: Any) -> Callable[[], tuple[nn.Module, Any]]:
    return _series(lambda: Recurrent(kind, **options))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "conformer": _series(Conformer, 2, 12, 32),
    "wavenet": _series(WaveNet, 2, 1, 32),
    "tcn": _series(lambda: _tcn(lambda m: m), 2, 4, 20),
    "tcn_weight_norm": _series(lambda: _tcn(torch.nn.utils.parametrizations.weight_norm), 2, 4, 20),
    "rnn": _recurrent(nn.RNN),
    "gru": _recurrent(nn.GRU),
    "lstm": _recurrent(nn.LSTM),
    "lstm_bidirectional_stacked": _recurrent(nn.LSTM, num_layers=2, bidirectional=True),
    "gru_bidirectional_stacked": _recurrent(nn.GRU, num_layers=2, bidirectional=True),
    "lstm_projected": _recurrent(nn.LSTM, num_layers=2, proj_size=10),
    "lstm_no_bias": _recurrent(nn.LSTM, bias=False),
    "packed_tagger": lambda: (
        PackedTagger(),
        (torch.randint(1, 50, (3, 7)), torch.tensor([7, 5, 3])),
    ),
    "cells": _series(Cells),
    "rnn_with_attention": _series(AttentiveRNN),
    "speech_ctc": _series(SpeechCTC, 2, 1, 32, 20),
    "conv_lstm": _series(ConvLSTM, 2, 3, 3, 8, 8),
    "hand_written_lstm": _series(MinimalLSTM),
    "highway": _series(Highway, 4, 8),
}

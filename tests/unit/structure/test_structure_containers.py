"""What a network may be called with, besides tensors, tuples and dicts of them."""

from collections import OrderedDict, UserDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import penjing as pj
from penjing.structure._network._containers import map_tensors, tensors_of

IDS, MASK = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([[1.0, 1, 1], [1, 0, 0]])


@dataclass(frozen=True)
class Frozen:
    ids: torch.Tensor
    mask: torch.Tensor
    name: str = "batch"


@dataclass(slots=True)
class Slotted:
    ids: torch.Tensor
    mask: torch.Tensor


class Pair(NamedTuple):
    ids: torch.Tensor
    mask: torch.Tensor


class Plain:
    def __init__(self) -> None:
        self.ids, self.mask, self.origin = IDS, MASK, None


class Encoded(UserDict[str, torch.Tensor]):
    """As tokenizers give them."""


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(6, 8), nn.Linear(8, 2)

    def forward(
        self, batch: Any = None, ids: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        ids, mask = (batch.ids, batch.mask) if batch is not None else (ids, mask)
        return self.out((self.words(ids) * mask.unsqueeze(-1)).sum(1))


EXAMPLES: dict[str, Any] = {
    "frozen dataclass": (Frozen(IDS, MASK),),
    "slotted dataclass": (Slotted(IDS, MASK),),
    "named tuple": (Pair(IDS, MASK),),
    "plain object": (Plain(),),
    "namespace": (SimpleNamespace(ids=IDS, mask=MASK),),
    "user dict": Encoded(ids=IDS, mask=MASK),
    "ordered dict": OrderedDict(ids=IDS, mask=MASK),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_records_and_mappings_are_followed(name: str):
    torch.manual_seed(0)
    model, example = Reader().eval(), EXAMPLES[name]
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert slim.words.embedding_dim == 4
    assert pj.verify(model, slim, plan, example).passed
    assert tensors_of(example)[0] is IDS  # the example is left as it was


def test_packed_sequences_are_followed():
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Any) -> torch.Tensor:
            return self.out(pad_packed_sequence(self.body(x)[0], batch_first=True)[0])

    model = Packed().eval()
    example = pack_padded_sequence(torch.randn(2, 6, 5), torch.tensor([6, 4]), batch_first=True)
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert slim.body.hidden_size == 4
    assert pj.verify(model, slim, plan, (example,)).passed


def test_containers_are_made_anew():
    changed = map_tensors(torch.zeros_like, {"a": [IDS, "text"], "b": Frozen(IDS, MASK)})
    assert [t.sum().item() for t in tensors_of(changed)] == [0, 0, 0]
    assert changed["a"][1] == "text"
    assert changed["b"].name == "batch"


def test_distributions_need_no_values():
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.mean, self.choice = nn.Linear(4, 16), nn.Linear(16, 2), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, ...]:
            h = self.body(x).tanh()
            normal = torch.distributions.Normal(self.mean(h), 1.0)
            choice = torch.distributions.Categorical(logits=self.choice(h))
            return normal.mean, choice.log_prob(action), choice.entropy()

    model, example = Policy().eval(), (torch.randn(3, 4), torch.tensor([0, 2, 1]))
    checked = torch.distributions.Distribution._validate_args
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert slim.body.out_features == 8
    assert pj.verify(model, slim, plan, example).passed
    assert torch.distributions.Distribution._validate_args == checked

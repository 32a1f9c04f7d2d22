import torch
from torch import nn

from penjing.measure._memory import peak_memory

FLOAT = 4


def chain(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8, bias=False), activation, nn.Linear(8, 2, bias=False))


WEIGHTS, INPUT, HIDDEN, OUTPUT = (8 * 4 + 2 * 8) * FLOAT, 3 * 4 * FLOAT, 3 * 8 * FLOAT, 3 * 2 * FLOAT


def test_peak_of_a_chain_is_its_widest_step() -> None:
    found = peak_memory(chain(nn.ReLU()), torch.randn(3, 4))
    assert found.value == WEIGHTS + INPUT + 2 * HIDDEN
    assert (found.metric, found.unit, found.repeats, found.spread) == ("memory", "bytes", 1, 0.0)


def test_in_place_activation_saves_a_copy() -> None:
    found = peak_memory(chain(nn.ReLU(inplace=True)), torch.randn(3, 4))
    assert found.value == WEIGHTS + INPUT + HIDDEN + OUTPUT


def test_only_activations_grow_with_the_batch() -> None:
    found = peak_memory(chain(nn.ReLU()), torch.randn(1, 4), batch_size=30)
    assert found.value == WEIGHTS + 10 * (INPUT + 2 * HIDDEN)


def test_released_tensors_leave_and_kept_ones_stay() -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                x = x + 1
            kept = [x * factor for factor in range(4)]
            return kept[0]

    size = 10 * FLOAT
    assert peak_memory(Branches(), torch.randn(10)).value == size * (1 + 1 + 4)


def test_views_and_tied_weights_take_no_room() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.tied = self.embed.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(2, 6).T[1:].unsqueeze(0)

    assert peak_memory(Views(), torch.randn(3, 4)).value == (40 + 12) * FLOAT

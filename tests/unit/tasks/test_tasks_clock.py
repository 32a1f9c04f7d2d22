"""Frames of a clip, learnt from the network, whatever the clip is padded to."""

import pytest
import torch
from torch import Tensor, nn

from penjing.core import Sounds
from penjing.tasks._clock import Clock, clock_of
from penjing.tasks._ctc import Spoken
from penjing.tasks._speech import speech_recognition
from penjing.tasks._speech_alphabet import alphabet_of

WAVES = Sounds(sample_rate=8_000, features="waveform", layout="samples")
STRIDES = [((10, 5), (3, 2)), ((20, 10), (8, 4), (4, 2)), ((7, 7),), ((3, 1),)]


class Listener(nn.Module):
    """Convolutions over samples [b, n], then symbols [b, frames, 3]."""

    def __init__(self, layers: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        widths = [1, *[4] * len(layers)]
        self.body = nn.Sequential(*(nn.Conv1d(a, 4, k, s) for a, (k, s) in zip(widths, layers, strict=False)))
        self.head = nn.Linear(4, 3)

    def forward(self, samples: Tensor) -> Tensor:
        return self.head(self.body(samples[:, None]).transpose(1, 2))


@pytest.mark.parametrize("layers", STRIDES)
def test_the_clock_counts_as_the_network_does(layers: tuple[tuple[int, int], ...]) -> None:
    network = Listener(layers).train()
    clock = clock_of(network, WAVES, 500)
    assert clock is not None
    assert network.training
    lengths = torch.tensor([300, 301, 399, 500, 777, 1_234, 4_000])
    counted = [network(torch.zeros(1, n)).shape[1] for n in lengths.tolist()]
    assert clock.frames(lengths).tolist() == counted


def test_frames_that_do_not_follow_the_length_have_no_clock() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 3)

        def forward(self, samples: Tensor) -> Tensor:
            return self.head(samples[:, :7, None])

    assert clock_of(Fixed(), WAVES, 500) is None
    whole = Sounds(sample_rate=8_000, features="mels", layout="frames", bins=4, frames=50)
    assert clock_of(Fixed(), whole, 500) is None


def test_frames_over_features_and_pictures() -> None:
    frames = Sounds(sample_rate=8_000, features="mels", layout="frames", bins=5)
    assert clock_of(nn.Linear(5, 3), frames, 100) == Clock(first=1, hop=1)


def test_a_clip_keeps_its_frames_whatever_it_is_padded_to() -> None:
    network = Listener(((20, 10), (8, 4), (4, 2))).eval()
    task = speech_recognition(alphabet_of(["ab"]), clock=clock_of(network, WAVES, 2_000))
    clip, own = torch.randn(1, 2_003), network(torch.zeros(1, 2_003)).shape[1]
    losses, counts = [], []
    for padded in (2_003, 2_400, 3_111, 9_000):
        batch = torch.zeros(1, padded)
        batch[:, :2_003] = clip
        spoken = Spoken(torch.tensor([[1, 2]]), torch.tensor([2]), torch.tensor([2_003 / padded]))
        with torch.no_grad():
            logits = network(batch)
            counts.append(int(task.positions(logits, (batch, spoken)).sum()))
            losses.append(float(task.loss(logits, (batch, spoken))))
    assert counts == [own] * 4
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)  # float32

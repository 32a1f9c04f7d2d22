"""Kernels that span a whole dim sum over it, as convolutions over words span their embeddings."""

import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj


class TextClassifier(nn.Module):
    """Kim (EMNLP 2014): parallel convolutions over 2 to 4 words, the largest response of each filter."""

    def __init__(self, words: int = 30, width: int = 12, filters: int = 10, classes: int = 3) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.filters = nn.ModuleList([nn.Conv2d(1, filters, (k, width)) for k in (2, 3, 4)])
        self.out = nn.Linear(3 * filters, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids).unsqueeze(1)
        found = [F.relu(conv(x)).squeeze(3).amax(2) for conv in self.filters]
        return self.out(torch.cat(found, 1))


def test_embeddings_shrink_under_kernels_that_span_them():
    torch.manual_seed(0)
    model, example = TextClassifier().eval(), torch.randint(0, 30, (2, 9))
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert not plan.skipped
    assert slim.words.embedding_dim == 6
    assert [conv.kernel_size for conv in slim.filters] == [(2, 6), (3, 6), (4, 6)]
    assert slim.out.in_features == 15
    assert pj.verify(model, slim, plan, torch.randint(0, 30, (3, 14))).passed


def test_kernels_that_span_the_places_of_this_example_only_stay():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 6), nn.Flatten(), nn.Linear(4, 2))
    structure = pj.trace(model.eval(), torch.randn(1, 3, 8, 8))
    causes = {f.cause for f in structure.frozen if f.parameter == "2.weight" and f.dim > 1}
    assert causes == {"2: convolution slides over this dim"}


def test_several_channels_under_a_whole_kernel():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 8), nn.Conv2d(4, 6, (3, 8)), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.b(self.a(x)).squeeze(3).mean(2))

    model, example = Both().eval(), torch.randn(2, 4, 7, 5)
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert (slim.a.out_features, tuple(slim.b.weight.shape)) == (4, (3, 4, 3, 4))
    assert pj.verify(model, slim, plan, torch.randn(1, 4, 9, 5)).passed

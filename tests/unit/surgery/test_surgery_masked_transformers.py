"""PyTorch's own transformers with the masks that their users give."""

import pytest
import torch
from torch import nn

import penjing as pj


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(20, 16), nn.Embedding(20, 16)
        self.body = nn.Transformer(16, 4, 1, 1, 32, batch_first=True)
        self.out = nn.Linear(16, 20)

    def forward(self, source: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        padding = source == 0
        y = self.body(
            self.source(source),
            self.target(target),
            tgt_mask=mask,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.out(y)


def sentences(batch: int, length: int, start: float) -> dict[str, torch.Tensor]:
    source = torch.randint(1, 20, (batch, length))
    source[0, -2:] = 0
    mask = torch.triu(torch.full((5, 5), start), diagonal=1)
    return {"source": source, "target": torch.randint(1, 20, (batch, 5)), "mask": mask}


@pytest.mark.parametrize("below", [float("-inf"), -1e9, torch.finfo(torch.float32).min])
def test_a_causal_float_mask_may_be_read(below: float):
    torch.manual_seed(0)
    model = Translator().eval()
    slim, plan = pj.prune(model, sentences(2, 7, below), ratio=0.5)
    assert not plan.skipped
    assert slim.out.in_features == 8
    assert slim.body.decoder.layers[0].self_attn.num_heads == 2
    assert pj.verify(model, slim, plan, sentences(3, 9, below)).passed


def test_values_of_other_float_inputs_are_not_read():
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) if x.sum().item() > 0 else self.a(-x)

    with pytest.raises(pj.TraceError, match="depends on data"):
        pj.trace(Reader(), torch.randn(2, 4))


def test_an_encoder_with_fewer_heads_takes_padded_batches():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = model, nn.Linear(16, 3)

        def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            return self.out(self.body(x, src_key_padding_mask=padding))

    x, padding = torch.randn(2, 6, 16), torch.zeros(2, 6, dtype=torch.bool)
    padding[0, 4:] = True
    slim, _plan = pj.prune(Encoder().eval(), (x, padding), ratio=0.5)
    assert slim.body.layers[0].self_attn.num_heads == 2
    with torch.no_grad():  # PyTorch would turn the padded batch into a nested tensor here
        assert slim(x, padding).shape == (2, 6, 3)

"""Adjustments compose: with each other and with pruning they trace, verify, save, load and replay identically."""

import os
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import penjing as pj
from penjing.core import PenjingError
from penjing.structure import call_with, map_tensors
from penjing.surgery import adjust, adjustments

EXAMPLES = int(os.environ.get("PENJING_EXAMPLES", "1"))  # sequences of edits per network


class Residual(nn.Module):
    def __init__(self, width: int, act: type[nn.Module] = nn.SiLU) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.act = act()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x + self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))))


class Inverted(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.n1 = nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width)
        self.dw = nn.Conv2d(2 * width, 2 * width, 5, padding=2, groups=2 * width, bias=False)
        self.n2, self.down = nn.BatchNorm2d(2 * width), nn.Conv2d(2 * width, width, 1, bias=False)
        self.n3 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.hardswish(self.n2(self.dw(nn.functional.hardswish(self.n1(self.up(x))))))
        return x + self.n3(self.down(y))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        return x + self.out(mixed)


class Feedforward(nn.Module):
    def __init__(self, width: int, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, 32), nn.Linear(32, width)
        self.act = act()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(self.act(self.fc1(self.norm(x))))


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


def _pictures(*body: nn.Module, width: int = 16) -> tuple[nn.Module, torch.Tensor]:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)]
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *body, *head), torch.randn(2, 3, 16, 16)


def _vgg(pool: nn.Module, act: type[nn.Module]) -> tuple[nn.Module, torch.Tensor]:
    wide = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), act(), nn.Conv2d(16, 16, 1, bias=False), nn.Conv2d(16, 24, 3, padding=1),
        act(), pool, nn.Conv2d(24, 24, 5, padding=2, stride=2), act(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
        nn.Linear(216, 40), act(), nn.Dropout(0.1), nn.Linear(40, 40), act(), nn.Linear(40, 5),
    )  # fmt: skip
    return wide, torch.randn(2, 3, 32, 32)


def _tokens(*body: nn.Module) -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Linear(12, 16), *body, nn.LayerNorm(16), Mean(), nn.Linear(16, 4)), torch.randn(
        2, 7, 12
    )


def _sounds(act: type[nn.Module]) -> tuple[nn.Module, torch.Tensor]:
    net = nn.Sequential(
        nn.Conv1d(8, 16, 5, padding=2, bias=False), nn.BatchNorm1d(16), act(), nn.MaxPool1d(2),
        nn.Conv1d(16, 16, 3, padding=1), nn.BatchNorm1d(16), act(), nn.Conv1d(16, 24, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 6),
    )  # fmt: skip
    return net, torch.randn(2, 8, 64)


def _bert() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2}
    config = BertConfig(vocab_size=50, max_position_embeddings=16, num_labels=3, **sizes)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    tokens = torch.randint(1, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    return BertForSequenceClassification(config), {"input_ids": tokens, "attention_mask": mask}


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "residual": lambda: _pictures(Residual(16)),
    "two residuals": lambda: _pictures(Residual(16, nn.GELU), Residual(16, nn.ReLU)),
    "three residuals": lambda: _pictures(Residual(16), nn.MaxPool2d(2), Residual(16), Residual(16, nn.Hardswish)),
    "inverted": lambda: _pictures(Inverted(16)),
    "two inverted": lambda: _pictures(Inverted(16), nn.AvgPool2d(2), Inverted(16)),
    "mixed": lambda: _pictures(Inverted(16), Residual(16), nn.MaxPool2d(3, 2, 1), Residual(16)),
    "vgg max": lambda: _vgg(nn.MaxPool2d(2), nn.ReLU),
    "vgg avg": lambda: _vgg(nn.AvgPool2d(2), nn.SiLU),
    "vgg gelu": lambda: _vgg(nn.MaxPool2d(3, 2, 1), nn.GELU),
    "attention": lambda: _tokens(Attention(16)),
    "feedforward": lambda: _tokens(Feedforward(16)),
    "transformer": lambda: _tokens(Attention(16), Feedforward(16)),
    "two layers": lambda: _tokens(Attention(16), Feedforward(16), Attention(16, 2), Feedforward(16, nn.SiLU)),
    "mlp": lambda: (
        nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.SiLU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 4)),
        torch.randn(3, 12),
    ),
    "linear mlp": lambda: (
        nn.Sequential(nn.Linear(12, 32), nn.Linear(32, 24, bias=False), nn.Linear(24, 4)),
        torch.randn(3, 12),
    ),
    "sounds": lambda: _sounds(nn.SiLU),
    "sounds relu": lambda: _sounds(nn.ReLU),
    "plain convolutions": lambda: _pictures(
        nn.Conv2d(16, 16, 1, bias=False), nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(24, 16, 3), nn.ReLU()
    ),
    "strided": lambda: _pictures(
        nn.Conv2d(16, 32, 3, stride=2, bias=False), nn.BatchNorm2d(32), nn.Hardswish(), nn.Conv2d(32, 16, 1)
    ),
    "encoder layer": lambda: (
        nn.Sequential(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), Mean(), nn.Linear(16, 4)),
        torch.randn(2, 7, 16),
    ),
    "bert": lambda: _bert(),
    "grouped": lambda: _pictures(
        Inverted(16), nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.BatchNorm2d(16), nn.ELU()
    ),
}  # fmt: skip


def built(name: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model, example = NETWORKS[name]()
    for _ in range(2):  # statistics that are not all alike
        call_with(model.train(), map_tensors(_redrawn, example))
    return model.eval(), example


def _redrawn(tensor: torch.Tensor) -> torch.Tensor:
    return torch.randn_like(tensor) if tensor.is_floating_point() else tensor


def answer_of(model: nn.Module, example: Any) -> torch.Tensor:
    found = call_with(model, example)
    return found if isinstance(found, torch.Tensor) else found.logits


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def composed(
    model: nn.Module, example: Any, choice: Callable[[Sequence[Any]], Any], steps: int = 10
) -> tuple[nn.Module, Any, list[str]]:
    """The network after edits that `choice` chose, the plan of them all, and what was done."""
    now, plan, done = model, None, []
    while len(done) < steps:
        found = [one for one in adjustments(now, example) if one.edit is not None]
        kinds = sorted({one.kind for one in found})
        kind = choice(["prune", *kinds, "prune"])
        done.append(kind)
        if kind == "prune":
            try:
                now, more = pj.prune(now, example, ratio=0.25)
            except PenjingError:  # nothing is left to prune
                continue
        else:
            now, more = adjust(now, example, [choice([one.edit for one in found if one.kind == kind])])
        plan = more if plan is None else plan.then(more)
    return now, plan, done


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.parametrize("name", NETWORKS)
def test_ten_random_edits_replay_identically(name: str, data: st.DataObject) -> None:
    model, example = built(name)
    slim, plan, done = composed(model, example, lambda options: data.draw(st.sampled_from(options)))
    again = pj.Plan.from_json(plan.to_json())
    assert again == plan
    assert same(pj.apply(model, again), slim), done
    proof = pj.verify(model, slim, plan, example)
    assert proof.passed, (done, proof.cause)
    with TemporaryDirectory() as folder:
        pj.save(folder, slim, plan, source="file:net.py:make")
        loaded = pj.load(folder, model=model)
    assert torch.equal(answer_of(loaded, example), answer_of(slim, example)), done


@pytest.mark.parametrize("name", NETWORKS)
def test_what_claims_to_keep_the_function_does(name: str) -> None:
    """In float64, to 1e-9, by the networks' own forwards alone."""
    model, example = built(name)
    model = model.double()
    example = map_tensors(lambda t: t.double() if t.is_floating_point() else t, example)
    exact = [one for one in adjustments(model, example) if one.exact and one.edit is not None]
    for one in exact:
        slim, plan = adjust(model, example, [one.edit])  # type: ignore[list-item]
        answer = answer_of(model, example)
        error = (answer_of(slim, example) - answer).abs().max() / max(1.0, answer.abs().max().item())
        assert error <= 1e-9, one.says
        assert not pj.verify(model, slim, plan, example).adjusted
    batch_norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    assert bool(exact) or not batch_norms or name in ("three residuals",)

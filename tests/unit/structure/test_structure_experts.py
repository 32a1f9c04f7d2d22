"""Routers and their experts: removing an expert removes its row of the router and its matrices."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj

EXPERTS, TOP, WIDTH, INNER = 6, 2, 16, 24


class Experts(nn.Module):
    """Tokens sorted by expert meet their expert's matrices at once."""

    def __init__(self) -> None:
        super().__init__()
        self.count = EXPERTS
        self.up = nn.Parameter(torch.randn(EXPERTS, 2 * INNER, WIDTH))
        self.bias = nn.Parameter(torch.randn(EXPERTS, 2 * INNER))
        self.down = nn.Parameter(torch.randn(EXPERTS, WIDTH, INNER))

    def forward(self, x: torch.Tensor, chosen: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        top = chosen.size(-1)
        ids, order = torch.sort(chosen.reshape(-1))
        counts = torch.histc(ids.float(), bins=self.count, min=0, max=self.count - 1)
        ends = torch.cumsum(counts, 0, dtype=torch.int32)
        h = F.grouped_mm(x[order // top], self.up.transpose(-2, -1), offs=ends) + self.bias[ids]
        h = h[..., ::2] * F.silu(h[..., 1::2])
        y = F.grouped_mm(h, self.down.transpose(-2, -1), offs=ends) * share.reshape(-1)[order][:, None]
        back = torch.empty_like(order)
        back[order] = torch.arange(order.size(0))
        return y[back].view(x.size(0), top, x.size(-1)).sum(1)

    def slow(self, x: torch.Tensor, chosen: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        rows = []
        for row, ids, shares in zip(x, chosen.tolist(), share, strict=True):
            parts = []
            for e, s in zip(ids, shares, strict=True):
                h = self.up[e] @ row + self.bias[e]
                parts.append(s * (self.down[e] @ (h[::2] * F.silu(h[1::2]))))
            rows.append(sum(parts))
        return torch.stack(rows)


class Routed(nn.Module):
    def __init__(self, top: int = TOP) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.top = top
        self.inp, self.router, self.out = nn.Linear(5, WIDTH), nn.Linear(WIDTH, EXPERTS), nn.Linear(WIDTH, 3)
        self.experts = Experts()

    def route(self, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        share, chosen = self.router(h).softmax(-1).topk(self.top, -1)
        return chosen, share / share.sum(-1, keepdim=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.inp(x)
        return self.out(h + self.experts(h, *self.route(h)))


def test_an_expert_takes_its_row_of_the_router_and_its_matrices():
    model, x = Routed().eval(), torch.randn(7, 5)
    found = {g.granularity: len(g) for g in pj.trace(model, x).groups}
    assert found == {"embed": WIDTH, "neuron": INNER, "expert": EXPERTS}
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert (slim.experts.count, tuple(slim.experts.up.shape)) == (3, (3, INNER, WIDTH // 2))
    proof = pj.verify(model, slim, plan, x)
    assert proof.passed
    assert proof.max_error <= 1e-9


def test_what_is_left_equals_a_loop_over_tokens_and_the_experts_that_stay():
    model, x = Routed().eval(), torch.randn(7, 5)
    slim, plan = pj.prune(model, x, ratio=0.5, granularity=("expert",))
    gone = list(plan.removed["router.weight"][0])
    h = model.inp(x)
    logits = model.router(h).index_fill(-1, torch.tensor(gone), float("-inf"))
    share, chosen = logits.softmax(-1).topk(TOP, -1)
    y = model.experts.slow(h, chosen, share / share.sum(-1, keepdim=True))
    torch.testing.assert_close(slim(x), model.out(h + y), rtol=1e-4, atol=1e-5)  # float32 on both sides


def test_a_router_that_asks_for_more_experts_than_would_stay_keeps_as_many():
    model, x = Routed(top=4).eval(), torch.randn(7, 5)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.router.out_features == 4
    assert not plan.skipped
    assert pj.verify(model, slim, plan, x).passed


def test_experts_chosen_by_a_value_that_code_reads_are_refused():
    class Loop(Routed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.inp(x)
            best = self.router(h).mean(0).argmax()
            return self.out(h * self.experts.bias[int(best)][:WIDTH])

    with pytest.raises(pj.TraceError, match="reads the value of a computed tensor"):
        pj.trace(Loop().eval(), torch.randn(7, 5))


def test_experts_told_apart_by_number_stay():
    class ByNumber(Routed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.inp(x)
            chosen, share = self.route(h)
            y = h
            for number in range(EXPERTS):
                here = (share * (chosen == number)).sum(-1, keepdim=True)
                y = y + here * (h @ self.experts.up[number].T @ self.experts.up[number])
            return self.out(y)

    structure = pj.trace(ByNumber().eval(), torch.randn(7, 5))
    causes = {f.cause for f in structure.frozen if f.parameter == "router.weight" and f.dim == 0}
    assert any("told apart by number" in cause for cause in causes)


def test_a_one_hot_of_places_follows_their_dim():
    class Mixed(Routed):
        def __init__(self) -> None:
            super().__init__()
            self.count = EXPERTS
            self.scale = nn.Parameter(torch.randn(EXPERTS, WIDTH))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.inp(x)
            chosen, share = self.route(h)
            weight = (F.one_hot(chosen, self.count) * share[..., None]).sum(1)
            return self.out(h * (weight @ self.scale))

    model, x = Mixed().eval(), torch.randn(7, 5)
    slim, plan = pj.prune(model, x, ratio=0.5, granularity=("expert",))
    assert (slim.count, slim.scale.shape[0], slim.router.out_features) == (3, 3, 3)
    assert pj.verify(model, slim, plan, x).passed


def test_places_that_are_returned_stay():
    class Told(Routed):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = self.inp(x)
            chosen, share = self.route(h)
            return self.out(h + self.experts(h, chosen, share)), chosen

    assert not [g for g in pj.trace(Told().eval(), torch.randn(7, 5)).groups if g.granularity == "expert"]


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.values, self.out = nn.Linear(4, 16), nn.Linear(4, 16), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.gate(x)
        best, places = scores.topk(4, -1)
        return self.out(torch.zeros_like(scores).scatter(1, places, best.softmax(-1)) * self.values(x))


def test_as_many_stay_as_are_taken():
    torch.manual_seed(0)
    model, example = Gated(), torch.randn(3, 4)
    slim, plan = pj.prune(model, example, ratio=0.9)
    assert slim.gate.out_features == slim.values.out_features == 4
    assert any("16 experts (gate.weight:0) >= 4" in policy for policy in plan.policies)
    assert pj.verify(model, slim, plan, example).passed

"""Adjustments one by one: what they make, what they say, and what does not fit."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.core import AdjustComponent, Plan
from penjing.surgery import Adjustable, adjust, adjustments
from penjing.surgery._adjustments._registry import ADJUSTMENTS, adjustment

X = torch.randn(2, 3, 32, 32)


def vgg() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.BatchNorm2d(16), nn.SiLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.GELU(), nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    ).eval()  # fmt: skip


def found(kind: str, module: str, model: nn.Module | None = None, x: Any = X, **options: Any) -> Adjustable:
    """The one adjustment of a kind on a module, with these options."""
    every = adjustments(vgg() if model is None else model, x)
    fit = [one for one in every if (one.kind, one.module) == (kind, module)]
    fit = [one for one in fit if one.edit is None or options.items() <= dict(one.edit.options).items()]
    assert len(fit) == 1, [one.says or one.why for one in fit]
    return fit[0]


def done(one: Adjustable, model: nn.Module | None = None, x: Any = X) -> nn.Module:
    assert one.edit is not None, one.why
    return adjust(vgg() if model is None else model, x, [one.edit])[0]


def test_a_folded_norm_is_gone_and_the_function_stays() -> None:
    slim = done(found("fold_norm", "0"))
    assert isinstance(slim[1], nn.Identity)
    assert set(dict(slim.named_parameters())) == set(dict(vgg().named_parameters())) - {"1.weight", "1.bias"}
    torch.testing.assert_close(slim(X), vgg()(X), atol=1e-5, rtol=1e-4)


def test_a_smaller_kernel_is_the_middle_of_the_old_one() -> None:
    slim = done(found("kernel", "0"))
    assert torch.equal(slim[0].smaller.weight, vgg()[0].weight[:, :, 1:4, 1:4])
    assert slim[0].smaller.padding == (1, 1)


@pytest.mark.parametrize(
    ("kind", "module"), [("low_rank", "9"), ("low_rank", "4"), ("spatial", "4"), ("separable", "4")]
)
def test_all_ranks_together_are_the_layer_itself(kind: str, module: str) -> None:
    """`full` claims exactness, which is then proven in float64 to 1e-9."""
    edit = next(
        one.edit for one in adjustments(vgg(), X) if (one.kind, one.module) == (kind, module) and one.edit
    )
    options = dict(edit.options)
    ranks = {"9": 64, "4": {"low_rank": 32, "spatial": 48, "separable": 9}.get(kind)}
    full = replace(edit, options=tuple(sorted((options | {"rank": ranks[module], "full": True}).items())))
    slim, plan = adjust(vgg(), X, [full])
    proof = pj.verify(vgg(), slim, plan, X)
    assert proof.passed
    assert not proof.adjusted
    assert 0 < proof.max_error < 1e-9


def test_lower_ranks_are_the_nearest() -> None:
    slim = done(found("low_rank", "9", rank=24))
    layer, weight = slim[9], vgg()[9].weight
    values = torch.linalg.svdvals(weight)
    missed = (layer.expand.weight @ layer.reduce.weight - weight).norm()
    torch.testing.assert_close(missed, values[24:].norm())


def test_convolutions_without_anything_between_become_one() -> None:
    torch.manual_seed(0)
    pair = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 6, 3, stride=2, bias=False)
    ).eval()
    one = found("merge", "0", pair)
    slim = done(one, pair)
    merged = slim[0].merged
    assert one.exact
    assert (merged.kernel_size, merged.stride, merged.padding) == ((7, 7), (4, 4), (1, 1))
    torch.testing.assert_close(slim(X), pair(X), atol=1e-5, rtol=1e-4)


def test_borders_and_activations_make_a_merge_inexact() -> None:
    padded = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, padding=1)).eval()
    assert not found("merge", "0", padded).exact
    inside = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 6, 3, padding=1)).eval()
    assert found("merge", "0", inside).exact
    assert found("merge", "4").says == "4 to 6: merged into one convolution, inexactly"


def test_a_wide_head_starts_as_its_product() -> None:
    """On pictures that are the same everywhere, with nothing between the layers."""
    torch.manual_seed(0)
    layers = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(3 * 16, 20), nn.Dropout(), nn.Linear(20, 4)]
    model, flat = nn.Sequential(*layers).eval(), torch.randn(2, 3, 1, 1).expand(2, 3, 32, 32)
    slim = done(found("head", "0", model), model)
    torch.testing.assert_close(slim(flat), model(flat), atol=1e-5, rtol=1e-4)
    assert sum(p.numel() for p in slim.parameters()) == 3 * 4 + 4


def test_pooling_of_another_kind() -> None:
    averaged = done(found("pool", "3", to="avg"))
    strided = done(found("pool", "3", to="conv"))
    torch.testing.assert_close(averaged(X), strided(X), atol=1e-5, rtol=1e-4)
    assert strided[3].pooling.groups == 16
    assert isinstance(done(found("pool", "3", to="none"))[3], nn.Identity)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.short = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.same = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.same(self.body(x) + self.short(x)).mean((2, 3))


def test_links_between_components() -> None:
    model, same = Block().eval(), Block.forward
    model.short.weight.data.zero_()
    model.short.bias.data.zero_()
    branchless = done(found("branch", "short", model), model)
    assert torch.equal(branchless(X), model(X))
    straight = done(found("bridge", "same", model), model)
    torch.testing.assert_close(straight(X), (model.body(X) + model.short(X)).mean((2, 3)))
    assert same(done(found("drop", "same", model), model), X).shape == (2, 8)
    summed, y = done(found("shortcut", "same", model), model), model.body(X) + model.short(X)
    torch.testing.assert_close(summed(X), (y + model.same(y)).mean((2, 3)))


@pytest.mark.parametrize(
    ("kind", "module", "why"),
    [
        ("activation", "10", "relu is as cheap as any"),
        ("drop", "4", "turns [16, 16, 16] into [32, 16, 16]"),
        ("kernel", "6", "not padded"),
        ("low_rank", "11", "too small to gain"),
    ],
)
def test_what_does_not_fit_says_why(kind: str, module: str, why: str) -> None:
    one = found(kind, module)
    assert one.edit is None
    assert why in one.why


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.shared(self.shared(x)))
        return (self.norm(y) + y).mean((2, 3))


def test_modules_that_run_twice_or_are_read_twice_stay() -> None:
    every = adjustments(Twice().eval(), X)
    assert not [one for one in every if one.module == "shared" and one.edit is not None]
    assert "others read what last gives" in found("fold_norm", "norm", Twice().eval()).why


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (AdjustComponent(kind="magic", modules=("0",)), "adjustment 'magic'; known: activation"),
        (AdjustComponent(kind="drop", modules=("nowhere",)), "names module 'nowhere'"),
        (AdjustComponent(kind="drop", modules=("",)), "only modules in it"),
        (AdjustComponent(kind="activation", modules=("2",), options=(("to", "magic"),)), "none of relu"),
        (AdjustComponent(kind="activation", modules=("2",)), "lack or misstate .to."),
        (
            AdjustComponent(
                kind="low_rank",
                modules=("9",),
                options=(("bias", "bias"), ("rank", 1000), ("weight", "weight")),
            ),
            "not between 1 and 64",
        ),
    ],
)
def test_edits_that_do_not_fit_are_refused(edit: AdjustComponent, said: str) -> None:
    with pytest.raises(pj.PlanError, match=said):
        adjust(vgg(), X, [edit])


def test_what_is_no_edit_is_refused() -> None:
    with pytest.raises(pj.UsageError, match=r"edits\[1\] is a NoneType"):
        adjust(vgg(), X, [found("kernel", "0").edit, None])  # type: ignore[list-item]


def test_a_plan_lists_the_tensors_that_vanish() -> None:
    edit = found("kernel", "0").edit
    assert edit is not None
    for tensors in ((), (("0.weight", 15), ("0.bias", 16)), (*edit.tensors, ("4.bias", 32))):
        with pytest.raises(pj.PlanError, match="lists other tensors than those that vanish"):
            adjust(vgg(), X, [replace(edit, tensors=tensors)])


def test_plans_refuse_giants_and_nonsense() -> None:
    text = Plan(
        edits=(AdjustComponent(kind="drop", modules=("0",), options=(("a", 1),)),), fingerprint="f"
    ).to_json()
    assert Plan.from_json(text).edits[0].options == (("a", 1),)
    for bad in ('"a": 1e400', '"a": -1', '"a": {"b": 1}', f'"a": {2**41}', '"a": [0.5]'):
        with pytest.raises(pj.PlanError):
            Plan.from_json(text.replace('"a": 1', bad))
    with pytest.raises(pj.PlanError, match="different modules"):
        Plan.from_json(text.replace('"0"', '"0", "0"'))


def test_weights_changed_after_an_adjustment_are_not_proven() -> None:
    edit = found("kernel", "0").edit
    assert edit is not None
    slim, plan = adjust(vgg(), X, [edit])
    with torch.no_grad():
        slim[0].smaller.weight[0, 0, 0, 0] += 1
    assert "trained or changed" in pj.verify(vgg(), slim, plan, X).cause


def test_a_lie_about_exactness_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADJUSTMENTS, "drop", replace(ADJUSTMENTS["drop"], exact=lambda _: True))
    with pytest.raises(pj.VerificationError, match="is to keep the function changes it by"):
        done(found("drop", "same", Block().eval()), Block().eval())


def test_kinds_are_registered_once() -> None:
    with pytest.raises(ValueError, match="two adjustments are called 'drop'"):
        adjustment("drop", tell=str)(lambda modules, _: modules)


class Attention(nn.Module):
    """Tokens weighed by softmax, with arguments and results as transformers' modules have them."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
        logits = self.q(x) @ self.k(x).transpose(1, 2)
        logits = logits if mask is None else logits + mask[:, 0]
        return logits.softmax(-1) @ self.v(x), None


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm, self.wide, self.narrow = (
            Attention(), nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8),
        )  # fmt: skip
        self.act, self.head = nn.GELU(), nn.Linear(8, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm(x + self.attention(x, mask)[0])
        x = x + self.narrow(self.act(self.wide(x)))
        return self.head(x.mean(1))


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return Encoder().eval()


TOKENS = torch.randn(2, 5, 8)


def test_a_module_of_several_arguments_and_results_is_dropped_in_its_own_form() -> None:
    slim = done(found("drop", "attention", encoder(), (TOKENS,)), encoder(), (TOKENS,))
    whole = encoder()
    after = whole.norm(TOKENS + TOKENS)
    after = after + whole.narrow(whole.act(whole.wide(after)))
    torch.testing.assert_close(slim(TOKENS), whole.head(after.mean(1)))
    assert slim.attention(TOKENS, None)[1] is None


def test_with_a_branch_goes_what_was_computed_for_it_alone() -> None:
    one = found("branch", "wide", encoder(), (TOKENS,))
    assert one.edit is not None
    assert one.edit.modules == ("wide", "act", "narrow")
    slim = done(one, encoder(), (TOKENS,))
    assert not list(slim.wide.parameters())
    assert not list(slim.narrow.parameters())


@pytest.mark.parametrize("to", ["mean", "near"])
def test_mixing_looks_at_what_attention_could_look_at(to: str) -> None:
    """What is masked has no say in the other tokens, nor in the answer for them."""
    x = torch.randn(2, 5, 8)
    mask = torch.zeros(2, 1, 1, 5)
    mask[:, :, :, 4:] = torch.finfo(torch.float32).min
    slim = done(found("mix", "attention", encoder(), (x, mask), to=to), encoder(), (x, mask))
    with torch.no_grad():
        for parameter in slim.attention.parameters():
            nn.init.normal_(parameter)
    changed = torch.cat((x[:, :4], x[:, 4:] + 100), 1)
    before, after = (slim.attention(tokens, mask)[0][:, :3] for tokens in (x, changed))
    torch.testing.assert_close(before, after)
    boolean = slim.attention(x, mask == 0)[0]
    torch.testing.assert_close(boolean, slim.attention(x, mask)[0])
    assert not torch.allclose(slim.attention(x, None)[0], boolean)


def test_mixing_keeps_masks_of_torchs_own_attention() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    slim = done(found("mix", "self_attn", model, (TOKENS,), to="mean"), model, (TOKENS,))
    with torch.no_grad():
        for parameter in slim.self_attn.parameters():
            nn.init.normal_(parameter)
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[:, 4] = True
    changed = torch.cat((TOKENS[:, :4], TOKENS[:, 4:] + 100), 1)
    answers = [slim(tokens, src_key_padding_mask=padding)[:, :4] for tokens in (TOKENS, changed)]
    torch.testing.assert_close(*answers)


@pytest.mark.parametrize(("percent", "size"), [(50, 16), (75, 24)])
def test_fewer_pixels_reach_the_first_layer(percent: int, size: int) -> None:
    slim, seen = done(found("resolution", "0", percent=percent)), list[Any]()
    slim[0].inner.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    flat = torch.ones(1, 3, 32, 32)
    assert slim(flat).shape == (1, 10)
    assert tuple(seen[0][2:]) == (size, size)
    torch.testing.assert_close(slim[0]._fewer(flat), torch.ones(1, 3, size, size))


def test_fewer_frames_reach_a_recurrent_network() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0].mean(1))

    torch.manual_seed(0)
    model, frames = Last().eval(), torch.randn(2, 20, 6)
    slim = done(found("resolution", "lstm", model, frames, percent=50), model, frames)
    pairs = frames.view(2, 10, 2, 6).mean(2)
    torch.testing.assert_close(slim(frames), model(pairs))

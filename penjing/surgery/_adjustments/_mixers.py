"""Attention replaced by cheaper mixing: what a token is, the mean of all that it could look at, and its neighbours."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core._edits import AdjustComponent
from penjing.core._graph import ModuleCall
from penjing.surgery._adjustments._links import first_tensor, formed, once
from penjing.surgery._adjustments._propose import Misfit, Site, proposer
from penjing.surgery._adjustments._registry import Options, adjustment, affordable, number, text

MIX = "mix"
aten = torch.ops.aten
_TOLD = {
    "mean": "each token's own features and the mean of all",
    "near": "each token's own features, its neighbours' and the mean of all",
}
_TURNED = ("key_padding_mask", "attn_mask")
_WEIGHING = {aten._softmax, aten._safe_softmax}


class Mixer(nn.Module):
    """y_t = A x_t + B m_t + C (x_(t-1) + x_(t+1)) / 2 + b for tokens x [batch, tokens, features].

    m_t is the mean of the tokens that attention could look at: its weights were its logits all zero, under the mask
    among the arguments where there is one. Without C neighbours do not count. (Pooling in the place of attention: Yu et
    al., "MetaFormer is actually what you need for vision", CVPR 2022.)
    """

    summed = ("own", "context", "near")  # layers that give the result together
    batch_first = False  # as nn.TransformerEncoderLayer asks: no kernel of its own computes this

    def __init__(self, inner: int, outer: int, *, near: bool, form: str) -> None:
        super().__init__()
        self.form = form
        self.own = nn.Linear(inner, outer, device="meta")
        self.context = nn.Linear(inner, outer, bias=False, device="meta")
        self.near = nn.Linear(inner, outer, bias=False, device="meta") if near else None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        x = first_tensor(args)
        seen = _seen(args, kwargs, x)
        mean = x.mean(1, keepdim=True) if seen is None else seen @ x
        mixed = self.own(x) + self.context(mean)
        if self.near is not None:
            ends = torch.cat((x[:, :1], x, x[:, -1:]), 1)
            mixed = mixed + self.near((ends[:, :-2] + ends[:, 2:]) / 2)
        return formed(mixed, self.form)


def _seen(args: Sequence[Any], kwargs: Mapping[str, Any], x: Tensor) -> Tensor | None:
    """What every token looks at in equal parts [batch, 1 or tokens, tokens], None where it is all.

    Masks of four dims are those of `scaled_dot_product_attention` (true, or added 0: looked at); those that
    `nn.MultiheadAttention` calls `key_padding_mask` and `attn_mask` mean the reverse where they are boolean.
    """
    tokens, logits = x.shape[1], None
    for name, item in (*((None, arg) for arg in args), *kwargs.items()):
        if not isinstance(item, Tensor) or item is x or item.dim() < 2 or item.shape[-1] != tokens:
            continue
        turned = name in _TURNED and item.dim() < 4
        if item.dim() == 4 or turned:
            kept = (
                item[:, 0]
                if item.dim() == 4
                else item[:, None]
                if name == _TURNED[0]
                else item.view(-1, *item.shape[-2:])
            )
            kept = kept if len(kept) in (1, len(x)) else kept[:: len(kept) // len(x)]
            more = _logits(~kept if turned and kept.dtype is torch.bool else kept, x.dtype)
            logits = more if logits is None else logits + more
    return None if logits is None else logits.softmax(-1)


def _logits(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a boolean mask is true, else very little; others are added as they are."""
    if mask.is_floating_point():
        return mask.to(dtype)
    return (~mask.bool()).to(dtype) * torch.finfo(dtype).min


@adjustment(MIX, tell=lambda o: f"its attention became {_TOLD.get(str(o['to']), o['to'])}")
def mix(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """Starts as what each token is, where inputs and outputs are as wide, else as zero: fit it to data."""
    (attention,) = modules
    to, like = text(options, "to"), next(p for p in attention.parameters() if p.is_floating_point())
    if to not in _TOLD:
        raise ValueError(f"to={to!r} is none of {', '.join(_TOLD)}")
    affordable(modules, number(options, "out"), number(options, "in"), 3)
    made = Mixer(
        number(options, "in"), number(options, "out"), near=to == "near", form=text(options, "form")
    ).to_empty(device=like.device)
    made.to(like.dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
            parameter.requires_grad_(like.requires_grad)
        if made.own.in_features == made.own.out_features:
            made.own.weight.copy_(torch.eye(made.own.in_features))
    return (made,)


@proposer
def _mixers(site: Site) -> Iterator[AdjustComponent | Misfit]:
    able = [call for call in once(site) if _weighs(site, call)]
    for call in able:
        inside = any(other.path.startswith(f"{call.path}.") for other in able)
        why = _no_mixer(site, call)
        if inside and (why or not _no_mixer_inside(site, call, able)):
            continue
        if why:
            yield Misfit(kind=MIX, module=call.path, why=why)
            continue
        source, target = (site.shape(value) for value in (call.inputs[0], call.outputs[0]))
        sizes = {"in": source[-1], "out": target[-1], "form": call.form}
        for to in _TOLD:
            yield site.edit(MIX, call.path, to=to, **sizes)


def _no_mixer_inside(site: Site, call: ModuleCall, able: Sequence[ModuleCall]) -> bool:
    """Whether none of the modules in it that attend can be replaced by themselves."""
    inner = [other for other in able if other.path.startswith(f"{call.path}.")]
    return all(_no_mixer(site, other) for other in inner)


def _weighs(site: Site, call: ModuleCall) -> bool:
    """Whether a module weighs tokens by softmax, and holds weights of its own."""
    calls = site.parts.graph.calls[call.first_op : call.last_op]
    owned = any(name.startswith(f"{call.path}.") for state in site.structure.states for name in state.names)
    return owned and any(one.op.overloadpacket in _WEIGHING for one in calls)


def _no_mixer(site: Site, call: ModuleCall) -> str:
    if not call.inputs or len(call.outputs) != 1 or call.form.count("t") != 1 or "?" in call.form:
        return "it gives more than one tensor, or is given none"
    source, target = (site.shape(value) for value in (call.inputs[0], call.outputs[0]))
    if len(source) != 3 or len(target) != 3 or source[:2] != target[:2]:
        return f"it turns {list(source)} into {list(target)}: no tokens that stay"
    weighed = [
        site.shape(one.outputs[0])
        for one in site.parts.graph.calls[call.first_op : call.last_op]
        if one.op.overloadpacket in _WEIGHING
    ]
    if len(weighed) != 1 or weighed[0][-2:] != (source[1], source[1]) or source[0] == source[1]:
        return "it attends more than once, or to other tokens than its own"
    return ""

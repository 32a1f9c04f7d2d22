"""Attention of a student drawn to a teacher's, whatever the numbers of heads."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from penjing.structure import fast_paths_off, free_attention, is_stock_attention

_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)
_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


class Attended(NamedTuple):
    """Queries, keys and values of one self-attention, each [batch, heads, positions, width of a head]."""

    query: Tensor
    key: Tensor
    value: Tensor


class _Open(NamedTuple):
    """Scores on the way from query x key to the product with the values; `held` keeps their identity theirs."""

    held: Tensor
    query: Tensor
    key: Tensor
    weights: bool


class AttentionWatch(TorchFunctionMode):
    """Collects the self-attentions that are computed inside, in order, with their gradients.

    Seen are `scaled_dot_product_attention`, and query x key, softmax, product with the values written with
    matmul, bmm or a two-operand einsum. Anything else, and attention that looks at something else than itself, is
    not seen.
    """

    def __init__(self, examples: int) -> None:
        super().__init__()
        self.found: list[Attended] = []
        self._examples = examples
        self._open: dict[int, _Open] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            self._add(named["query"], named["key"], named["value"])
        elif isinstance(out, Tensor) and out.ndim >= 3:
            self._follow(func, args, out)
        return out

    def _follow(self, func: Any, args: tuple[Any, ...], out: Tensor) -> None:
        given = [arg for arg in args if isinstance(arg, Tensor)]
        product = _product(func, args)
        scores = next((self._open[id(t)] for t in given if id(t) in self._open), None)
        if product is not None:
            first, second = product
            if scores is not None and scores.weights and id(first) in self._open:
                self._add(scores.query, scores.key, second)
            elif scores is None and out.shape[-1] == out.shape[-2]:
                self._open[id(out)] = _Open(out, first, second.transpose(-2, -1), False)
        elif (
            scores is not None
            and out.shape[-2:] == scores.held.shape[-2:]
            and out.numel() == scores.held.numel()
        ):
            weights = scores.weights or func in _SOFTMAX
            self._open[id(out)] = scores._replace(held=out, weights=weights)

    def _add(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        self._open.clear()
        parts = [self._by_example(t) for t in (query, key, value)]
        if all(part is not None and part.shape[2] == query.shape[-2] for part in parts):
            self.found.append(Attended(*(part for part in parts if part is not None)))

    def _by_example(self, t: Tensor) -> Tensor | None:
        """[batch, heads, positions, width]; None where the leading dims are something else."""
        if t.ndim == 3 and len(t) % self._examples == 0:
            t = t.unflatten(0, (self._examples, -1))
        return t if t.ndim == 4 and len(t) == self._examples else None


def _product(func: Any, args: tuple[Any, ...]) -> tuple[Tensor, Tensor] | None:
    """The operands of a batched matrix product [.., m, k] x [.., k, n]; None for another function."""
    if func in _PRODUCTS and len(args) == 2 and args[0].ndim > 2 and args[0].ndim == args[1].ndim:
        return args[0], args[1]
    if func is not torch.einsum or len(args) != 3 or not isinstance(args[0], str):
        return None
    sides, _, out = args[0].replace(" ", "").partition("->")
    first, _, second = sides.partition(",")
    if not (len(first) == len(second) == len(out) == args[1].ndim >= 3 and first[:-1] == out[:-1]):
        return None
    if second == first[:-2] + out[-1] + first[-1]:
        return args[1], args[2].transpose(-2, -1)
    return (args[1], args[2]) if second == first[:-2] + first[-1] + out[-1] else None


@contextmanager
def attentions(model: nn.Module, examples: int) -> Iterator[list[Attended]]:
    """Inside, calls of the model on `examples` rows leave their self-attentions in the list.

    PyTorch's own `nn.MultiheadAttention` runs as its written-out twin meanwhile.
    """
    stock = [(m, m._qkv_same_embed_dim) for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    stock = [(m, same) for m, same in stock if is_stock_attention(m)]
    for module, _ in stock:
        free_attention(module)
    try:
        with fast_paths_off(), AttentionWatch(examples) as watch:
            yield watch.found
    finally:
        for module, same in stock:
            module.__class__ = nn.MultiheadAttention
            module._qkv_same_embed_dim = same


def relation_distance(student: Attended, teacher: Attended, keep: Tensor) -> Tensor:
    """The mean KL(teacher || student) of query-query, key-key and value-value relations, in nats.

    Heads are joined and cut anew into as many relation heads as both widths allow, at most the teacher's heads; the
    relation of positions is softmax(x x^T / sqrt(width of a relation head)) over the positions [batch, positions]
    to keep (Wang et al., "MiniLMv2", Findings of ACL 2021, eqs. 5 to 7), averaged over those and over the heads.
    Numbers of heads and their widths may differ. It compares who is alike, not what is there: turning all queries
    together changes nothing. No positions give 0.
    """
    parts = [_relation_distance(s, t, keep) for s, t in zip(student, teacher, strict=True)]
    return torch.stack(parts).mean()


def _relation_distance(student: Tensor, teacher: Tensor, keep: Tensor) -> Tensor:
    heads = relation_heads(student, teacher)
    own, other = _relation(student, heads, keep), _relation(teacher, heads, keep)
    each = (other.exp() * (other - own)).masked_fill(~keep[:, None, None, :], 0.0).sum(-1).mean(1)
    return each[keep].sum() / keep.sum().clamp_min(1)


def relation_heads(student: Tensor, teacher: Tensor) -> int:
    """The largest number of heads, at most the teacher's, that divides the joined widths of both."""
    joined = math.gcd(*(t.shape[1] * t.shape[3] for t in (student, teacher)))
    return next(n for n in range(min(joined, teacher.shape[1]), 0, -1) if joined % n == 0)


def _relation(x: Tensor, heads: int, keep: Tensor) -> Tensor:
    """Log of the relation [batch, heads, positions, positions]; keys that are padding get the lowest number."""
    joined = x.transpose(1, 2).flatten(2).float()
    x = joined.unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = x @ x.transpose(-2, -1) / x.shape[-1] ** 0.5
    low = torch.finfo(scores.dtype).min
    return F.log_softmax(scores.masked_fill(~keep[:, None, None, :], low), dim=-1)

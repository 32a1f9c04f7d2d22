"""Single weights instead of units: which go, at a share of zeros or in N:M patterns."""

import fnmatch
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import InternalError, UsageError
from penjing.criteria._calibration import batches_of
from penjing.criteria._moments import input_moments
from penjing.criteria._registry import Context

_PATTERN = re.compile(r"(\d+):(\d+)")
_TABLES = (nn.Embedding, nn.EmbeddingBag)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

Scores = Mapping[str, Tensor]
WeightScores = Callable[[nn.Module, Sequence[str], Iterable[Any] | None], dict[str, Tensor]]
WEIGHT_SCORES: dict[str, WeightScores] = {}


def weight_criterion(name: str) -> Callable[[WeightScores], WeightScores]:
    """Register scores per weight under a name; a duplicate raises."""

    def register(scores: WeightScores) -> WeightScores:
        if name in WEIGHT_SCORES:
            raise InternalError(f"two criteria for weights are called {name!r}")
        WEIGHT_SCORES[name] = scores
        return scores

    return register


@weight_criterion("magnitude")
def magnitude(model: nn.Module, names: Sequence[str], calibration: Iterable[Any] | None) -> dict[str, Tensor]:
    """|w|, compared within its layer (Han et al., NeurIPS 2015). Costs one pass over the weights, and no data."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name].detach().abs() for name in names}


@weight_criterion("wanda")
def wanda(model: nn.Module, names: Sequence[str], calibration: Iterable[Any] | None) -> dict[str, Tensor]:
    """|w_ij| ||x_j||_2, compared within its output (Sun et al., "Wanda", ICLR 2024, eq. 1); over a convolution's taps
    the input channel's norm. Costs one forward pass per calibration batch; padded positions do not count where the
    inputs hold a mask. A weight whose input is not seen there scores by its magnitude.
    """
    context = Context(calibration=calibration)
    seen = input_moments(model, batches_of("wanda", context, loss=False))
    found = magnitude(model, names, None)
    for name, scores in found.items():
        moments = seen.get((name, layout(model, name).dim))
        if moments is not None:
            found[name] = _times(scores, moments.mean_square.sqrt().to(scores), layout(model, name).dim)
    return found


def _times(scores: Tensor, norms: Tensor, dim: int) -> Tensor:
    """`norms` are [groups, inputs]; a convolution's groups have outputs, and read channels, of their own."""
    groups = len(norms)
    shape = [groups, *(-1 if d == dim else 1 for d in range(scores.dim()))]
    return (scores.unflatten(0, (groups, -1)) * norms.reshape(shape)).flatten(0, 1)


def weight_scores(
    which: str, model: nn.Module, names: Sequence[str], calibration: Iterable[Any] | None = None
) -> dict[str, Tensor]:
    """Scores per weight by parameter name; higher means more important."""
    if which not in WEIGHT_SCORES:
        raise UsageError(
            f"no criterion for weights is called {which!r}. Known: {', '.join(sorted(WEIGHT_SCORES))}"
        )
    return WEIGHT_SCORES[which](model, names, calibration)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which dim of a weight its layer sums over, and in how many groups of inputs that have outputs of their own."""

    dim: int = 1
    groups: int = 1

    def inputs(self, weight: Tensor) -> int:
        """How many inputs one output reads."""
        return weight.shape[self.dim] // self.groups

    def by_output(self, values: Tensor) -> Tensor:
        """[groups, outputs, ..., inputs]."""
        return values.movedim(self.dim, -1).unflatten(-1, (self.groups, -1)).movedim(-2, 0)

    def back(self, values: Tensor) -> Tensor:
        """What `by_output` gave, laid out as the weight."""
        return values.movedim(0, -2).flatten(-2).movedim(-1, self.dim)


def layout(model: nn.Module, name: str) -> Layout:
    """How a weight lies; that of a parameter which no known layer owns as in `nn.Linear`, outputs first."""
    path = name.rpartition(".")[0].partition(".parametrizations.")[0].removesuffix(".parametrizations")
    owner = model.get_submodule(path)
    if isinstance(owner, _TRANSPOSED):
        return Layout(dim=0, groups=owner.groups)
    library = sys.modules.get(
        "transformers.pytorch_utils"
    )  # its Conv1D is a linear layer of weights [in, out]
    return Layout(dim=0 if library is not None and isinstance(owner, library.Conv1D) else 1)


def parse_pattern(pattern: str) -> tuple[int, int]:
    """N and M of "N:M": of M weights in a row N stay."""
    found = _PATTERN.fullmatch(pattern)
    kept, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < kept < of:
        raise UsageError(f"pattern={pattern!r} must read N:M with 0 < N < M, such as 2:4")
    return kept, of


def check_share(share: float) -> float:
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
        raise UsageError(f"share={share!r} must lie in [0, 1): it is the share of weights that become zero")
    return float(share)


def weight_names(
    model: nn.Module, layers: Sequence[str] | None = None, pattern: str | None = None
) -> tuple[str, ...]:
    """Parameters whose weights may go: those of two and more dims, without embedding tables and weight norm's sizes.

    `layers` are module paths, parameter names or glob patterns of those to take. Without them, weights whose input
    dim M does not divide stay as they are; with them, such a weight raises `UsageError`, as does one of `layers` that
    matches nothing.
    """
    tables = {p for m in model.modules() if isinstance(m, _TABLES) for p in m.parameters(recurse=False)}
    able = {
        n: p for n, p in model.named_parameters() if p.dim() > 1 and not (p in tables or _is_size(model, n))
    }
    for asked in layers or ():
        if not any(_matches(name, asked) for name in able):
            raise UsageError(
                f"layers={asked!r} matches no weight of two or more dims outside embedding tables: give a module path, "
                f"a parameter name or a pattern, for example {next(iter(able), 'none here')!r}"
            )
    chosen = [n for n in able if layers is None or any(_matches(n, asked) for asked in layers)]
    odd = odd_names(model, chosen, pattern) if pattern is not None else ()
    if layers is not None and odd:
        name, lies = odd[0], layout(model, odd[0])
        raise UsageError(
            f"pattern={pattern!r} needs input dims that {parse_pattern(pattern or '')[1]} divides: {name} has "
            f"{lies.inputs(able[name])} along dim {lies.dim}. Leave it out of layers"
        )
    return tuple(n for n in chosen if n not in odd)


def odd_names(model: nn.Module, names: Iterable[str], pattern: str) -> tuple[str, ...]:
    """Those of `names` whose input dim an N:M pattern's M does not divide: it cannot be laid over them."""
    of, parameters = parse_pattern(pattern)[1], dict(model.named_parameters())
    return tuple(n for n in names if layout(model, n).inputs(parameters[n]) % of)


def _is_size(model: nn.Module, name: str) -> bool:
    """Whether it is the length that weight norm gives each output: zeros there would take whole outputs."""
    path, _, leaf = name.rpartition(".")
    given = model.get_submodule(path)._parameters
    return (leaf == "original0" and "original1" in given) or (leaf[-2:] == "_g" and f"{leaf[:-1]}v" in given)


def _matches(name: str, asked: str) -> bool:
    path = name.rpartition(".")[0]
    under = name == asked or name.startswith(f"{asked}.")
    return under or fnmatch.fnmatch(name, asked) or fnmatch.fnmatch(path, asked)


def share_masks(
    scores: Scores, share: float, outputs: Mapping[str, Layout] | None = None
) -> dict[str, Tensor]:
    """True where a weight stays: of every layer, or by the layouts of every output's weights, the lowest `share` go."""
    check_share(share)
    found = {}
    for name, values in scores.items():
        lies = values if outputs is None else outputs[name].by_output(values)
        rows = values.reshape(1, -1) if outputs is None else lies.flatten(0, 1).flatten(1)
        mask = _without_lowest(rows, round(share * rows.shape[1])).reshape(lies.shape)
        found[name] = mask if outputs is None else outputs[name].back(mask)
    return found


def pattern_masks(scores: Scores, pattern: str, layouts: Mapping[str, Layout]) -> dict[str, Tensor]:
    """True where a weight stays: of every M in a row along the inputs of an output, the N highest."""
    kept, of = parse_pattern(pattern)
    found = {}
    for name, values in scores.items():
        last = layouts[name].by_output(values)
        mask = _without_lowest(last.reshape(-1, of), of - kept)
        found[name] = layouts[name].back(mask.reshape(last.shape))
    return found


def _without_lowest(rows: Tensor, count: int) -> Tensor:
    mask = torch.ones_like(rows, dtype=torch.bool)
    if count:
        mask.scatter_(1, rows.topk(count, dim=1, largest=False, sorted=False).indices, False)
    return mask

"""Distances between what goes on inside teacher and student: streams of hidden states, maps, relations."""

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.recover._attention import relation_distance
from penjing.recover._losses import Signals, Stream, register_loss

TINY = 1e-12
RKD_DISTANCE, RKD_ANGLE = 1.0, 2.0


def hidden_distance(student: Tensor, teacher: Tensor, keep: Tensor | None = None) -> Tensor:
    """Sum of (s - t)^2 over sum of t^2, over the positions [batch, positions] to keep: 0 is equal, 1 as far as zeros.

    Both are [batch, positions, width]. The mean squared error that TinyBERT (Jiao et al., Findings of EMNLP 2020,
    eq. 8) and DPHuBERT (Peng et al., Interspeech 2023, eq. 3) draw layers together with, relative to the teacher's
    size, so that no layer outweighs another. It says nothing of how the answers differ. No positions give 0.
    """
    own, other = _counted(student, keep), _counted(teacher.detach(), keep)
    return (own - other).square().sum() / other.square().sum().clamp_min(TINY)


def hint_distance(student: Tensor, teacher: Tensor, keep: Tensor | None = None) -> Tensor:
    """Half the mean of (s - t)^2 over the positions [batch, positions] to keep and the channels.

    Both are [batch, positions, width], the student's after its regressor. Romero et al., "FitNets: Hints for Thin
    Deep Nets", ICLR 2015, eq. 3, divided by the number of values so that the resolution does not matter. In the
    paper the hint trains the lower half of the student alone and first; here it is a term beside the others all
    along. Unlike `hidden_distance` it grows with the teacher's size. No positions give 0.
    """
    own, other = _counted(student, keep), _counted(teacher.detach(), keep)
    return (own - other).square().sum() / (2 * max(1, own.numel()))


def map_distance(student: Tensor, teacher: Tensor, keep: Tensor | None = None) -> Tensor:
    """Mean over examples of ||Q_s / |Q_s| - Q_t / |Q_t|||^2, Q = sum over channels of the squared activation.

    Streams are [batch, positions, width], widths may differ; Q is [batch, positions], |Q| its Euclidean norm over
    the positions to keep. Zagoruyko & Komodakis, "Paying More Attention to Attention" (activation-based attention
    transfer), ICLR 2017, section 3.1 and eq. 2 with p = 2, squared as in their code. It compares where a layer is
    active, not what it says there: scaling, turning or permuting channels changes nothing. It is no self-attention.
    """
    own, other = (_map(x, keep) for x in (student, teacher.detach()))
    return (own - other).square().sum(-1).mean()


def relational(student: Tensor, teacher: Tensor) -> Tensor:
    """Relational distillation of embeddings [n, a] and [n, b]: Huber distance of pairwise distances and of angles.

    Park et al., "Relational Knowledge Distillation", CVPR 2019: distances ||x_i - x_j|| over their mean in the batch
    (eqs. 6 to 8), angles cos(x_i x_j x_k) (eqs. 9 to 11), one to two as in the paper; means over pairs and
    triples instead of sums, so that the batch size does not matter. Only relations are compared: turning, shifting
    or scaling all embeddings of a network changes nothing. It needs two examples for distances, three for angles,
    and n^3 numbers of memory; fewer give 0.
    """
    own, other = student.float(), teacher.detach().float()
    if len(own) < 2:
        return own.sum() * 0.0
    near = F.smooth_l1_loss(_distances(own), _distances(other))
    turned = F.smooth_l1_loss(_angles(own), _angles(other))
    return RKD_DISTANCE * near + RKD_ANGLE * turned


@register_loss("hidden", needs="streams")
def hidden_states(signals: Signals) -> Tensor:
    """Mean of `hidden_distance` over the matched layers, 0 where there are none."""
    return _mean(signals, [hidden_distance(s.mapped, s.aim, s.keep) for s in signals.streams])


@register_loss("hints", needs="streams")
def _hints(signals: Signals) -> Tensor:
    return _mean(signals, [hint_distance(s.mapped, s.aim, s.keep) for s in signals.streams])


@register_loss("attention-transfer", needs="streams")
def attention_maps(signals: Signals) -> Tensor:
    """Mean of `map_distance` over the matched layers, 0 where there are none."""
    return _mean(signals, [map_distance(s.student, s.teacher, s.keep) for s in signals.streams])


@register_loss("relational", needs="streams")
def _relational(signals: Signals) -> Tensor:
    """`relational` of the last matched layer, averaged over the positions that count."""
    last = signals.streams[-1:]
    return _mean(signals, [relational(_pooled(s.student, s), _pooled(s.teacher, s)) for s in last])


@register_loss("minilm", needs="attention")
def attention_relations(signals: Signals) -> Tensor:
    """`relation_distance` of the chosen self-attention, 0 in a step that skipped it."""
    told = signals.attention
    parts = [] if told is None else [relation_distance(told.student, told.teacher, told.keep)]
    return _mean(signals, parts)


def _counted(x: Tensor, keep: Tensor | None) -> Tensor:
    return x.float() if keep is None else x[keep].float()


def _map(x: Tensor, keep: Tensor | None) -> Tensor:
    energy = x.float().square().sum(-1)
    return F.normalize(energy if keep is None else energy * keep, dim=-1, eps=TINY)


def _pooled(x: Tensor, stream: Stream) -> Tensor:
    if stream.keep is None:
        return x.float().mean(1)
    counts = stream.keep[..., None]
    return (x.float() * counts).sum(1) / counts.sum(1).clamp_min(1)


def _distances(x: Tensor) -> Tensor:
    """[n (n - 1) / 2]: distances of all pairs, over their mean."""
    first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
    apart = (x[first] - x[second]).square().sum(-1).clamp_min(TINY).sqrt()
    return apart / apart.mean()


def _angles(x: Tensor) -> Tensor:
    """[n, n, n]: at [j, i, k] the cosine of the angle at example j between i and k; 0 where two of them coincide."""
    edges = x[None] - x[:, None]
    squares = edges.square().sum(-1, keepdim=True)
    apart = squares > TINY
    edges = edges / squares.where(apart, 1.0).sqrt() * apart
    return edges @ edges.transpose(1, 2)


def _mean(signals: Signals, parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).mean() if parts else signals.student.new_zeros((), dtype=torch.float32)

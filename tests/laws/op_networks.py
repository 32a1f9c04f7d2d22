"""One line per op: `conv a -> the op -> conv i -> conv b`, so that something can always be pruned.

`FOLLOWED` ops let the channels of `a` go through them; for `STAYS` the channels of `a` are kept, with the op named as
the cause, and only what lies behind shrinks.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from small_networks import BUILDERS, Body, Network, conv, image
from torch import nn

aten = torch.ops.aten
Step = Callable[[Any, torch.Tensor], torch.Tensor]

FOLLOWED: dict[str, Step] = {
    "adaptive average pool": lambda m, h: F.adaptive_avg_pool2d(h, 2),
    "adaptive average pool 3d": lambda m, h: F.adaptive_avg_pool3d(h[..., None], (2, 2, 1)).squeeze(-1),
    "adaptive max pool 3d": lambda m, h: F.adaptive_max_pool3d(h[..., None], (2, 2, 1)).squeeze(-1),
    "average pool 1d": lambda m, h: F.avg_pool1d(h.flatten(2), 2)[..., None],
    "average pool 3d": lambda m, h: F.avg_pool3d(h[..., None], (2, 2, 1)).squeeze(-1),
    "nearest 1d": lambda m, h: F.interpolate(h.flatten(2), scale_factor=2)[..., None],
    "nearest 2d": lambda m, h: F.interpolate(h, scale_factor=2),
    "nearest 3d": lambda m, h: F.interpolate(h[..., None], scale_factor=2)[..., 0],
    "linear 1d": lambda m, h: F.interpolate(h.flatten(2), scale_factor=2, mode="linear")[..., None],
    "trilinear": lambda m, h: F.interpolate(h[..., None], size=(3, 3, 1), mode="trilinear").squeeze(-1),
    "bicubic": lambda m, h: F.interpolate(h, scale_factor=2, mode="bicubic"),
    "bilinear, antialiased": lambda m, h: F.interpolate(h, size=(3, 3), mode="bilinear", antialias=True),
    "bicubic, antialiased": lambda m, h: F.interpolate(h, size=(3, 3), mode="bicubic", antialias=True),
    "reflection pad 1d": lambda m, h: F.pad(h.flatten(2), (1, 1), mode="reflect")[..., None],
    "replication pad 1d": lambda m, h: F.pad(h.flatten(2), (1, 1), mode="replicate")[..., None],
    "replication pad 2d": lambda m, h: F.pad(h, (1, 1, 1, 1), mode="replicate"),
    "hardswish": lambda m, h: F.hardswish(h),
    "hardswish in place": lambda m, h: F.hardswish(h + 0, inplace=True),
    "threshold": lambda m, h: F.threshold(h, 0.1, 0.0),
    "threshold in place": lambda m, h: F.threshold(h + 0, 0.1, 0.0, inplace=True),
    "masked fill": lambda m, h: h.masked_fill(h < 0, 0.0),
    "masked fill in place": lambda m, h: (h + 0).masked_fill_(h < 0, 0.0),
    "where": lambda m, h: torch.where(h > 0, h, 0.1 * h),
    "squared distance": lambda m, h: F.mse_loss(h, h.flip(2), reduction="none"),
    "summed squared distance": lambda m, h: h * F.mse_loss(h, h.flip(2), reduction="sum"),
    "mean squared distance": lambda m, h: h * F.mse_loss(h, h.flip(2)),
    "smooth distance": lambda m, h: h * F.smooth_l1_loss(h, h.flip(2)),
    "robust distance": lambda m, h: h * F.huber_loss(h, h.flip(2)),
    "kth pixel": lambda m, h: h * h.kthvalue(2, 2, keepdim=True)[0],
    "commonest pixel": lambda m, h: h * h.round().mode(2, keepdim=True)[0],
    "cross entropy, pixel by pixel": lambda m, h: F.binary_cross_entropy_with_logits(
        h, h.sigmoid(), reduction="none"
    ),
    "cross entropy of shares": lambda m, h: F.binary_cross_entropy(
        h.sigmoid(), h.flip(2).sigmoid(), reduction="none"
    ),
    "nan to num": lambda m, h: torch.nan_to_num(h),
    "lower triangle": lambda m, h: h.tril(),
    "upper triangle": lambda m, h: h.triu(),
    "cast": lambda m, h: h.double().to(h.dtype),
    "detach": lambda m, h: h.detach(),
    "alias": lambda m, h: aten.alias(h),
    "copy": lambda m, h: aten.copy(torch.zeros_like(h), h),
    "copy in place": lambda m, h: torch.empty_like(h).copy_(h),
    "fill": lambda m, h: h + aten.fill(h, 1.0),
    "fill in place": lambda m, h: h + torch.empty_like(h).fill_(2.0),
    "zero in place": lambda m, h: h + torch.empty_like(h).zero_(),
    "ones like": lambda m, h: h * torch.ones_like(h),
    "full like": lambda m, h: h * torch.full_like(h, 0.5),
    "new zeros": lambda m, h: h + h.new_zeros(h.shape),
    "new ones": lambda m, h: h + h.new_ones(h.size()),
    "new full": lambda m, h: h + h.new_full(h.shape, 3.0),
    "zeros": lambda m, h: h + torch.zeros(h.shape),
    "ones": lambda m, h: h + torch.ones(h.shape[1], 1, 1),
    "full": lambda m, h: h + torch.full((h.shape[1], 1, 1), 2.0),
    "scalar tensor": lambda m, h: h * aten.scalar_tensor(2.0),
    "arange": lambda m, h: h + torch.arange(h.shape[-1]),
    "linspace": lambda m, h: h + torch.linspace(0, 1, h.shape[-1]),
    "eye": lambda m, h: h + torch.eye(h.shape[-1]),
    "largest": lambda m, h: h * h.max(1, keepdim=True)[0],
    "smallest": lambda m, h: h * h.min(1, keepdim=True)[0],
    "length of channels": lambda m, h: h / aten.norm(h, 2.0, [1], True),
    "distances of pixels": lambda m, h: h * torch.cdist(h[:, :, 0].mT, h[:, :, 1].mT, p=1.0)[:, None],
    "distances by products": lambda m, h: (
        h * torch.cdist(h.flatten(2).mT, h.flatten(2).mT)[..., :1].view(2, 1, 6, 6)
    ),
    "diagonal of channels": lambda m, h: (
        h * (h.flatten(2) @ h.flatten(2).mT).diagonal(dim1=1, dim2=2)[..., None, None]
    ),
    "diagonal matrix of channels": lambda m, h: (h.mean((2, 3)).diag_embed() @ h.flatten(2)).view_as(h),
    "trace of channels": lambda m, h: h * torch.trace(h[0].flatten(1) @ h[1].flatten(1).mT) / 36,
    "triangle of channels": lambda m, h: (
        (h.flatten(2) @ h.flatten(2).mT / 36).tril() @ h.flatten(2)
    ).view_as(h),
    "identity over channels": lambda m, h: F.conv2d(h, torch.eye(h.shape[1], dtype=h.dtype)[..., None, None]),
    "minimum over channels": lambda m, h: h * h.amin(1, keepdim=True),
    "log-sum-exp over channels": lambda m, h: h * h.logsumexp(1, keepdim=True),
    "numpy transpose": lambda m, h: h.mT.mT,
    "in-place transpose": lambda m, h: (h + 0).transpose_(2, 3),
    "in-place unsqueeze": lambda m, h: (h + 0).unsqueeze_(-1).squeeze_(-1),
    "index of pixels": lambda m, h: h[:, :, torch.tensor([0, 2, 1])],
    "cumulated pixels": lambda m, h: h.cumsum(2),
    "log-cumulated pixels": lambda m, h: h.logcumsumexp(3),
    "rolled pixels": lambda m, h: h.roll(1, 2),
    "cumulated channels": lambda m, h: h.cumsum(1),
    "best channels": lambda m, h: h.topk(4, 1)[0],
    "every other channel": lambda m, h: h[:, ::2],
    "overlapping windows": lambda m, h: h.contiguous().as_strided(
        (2, h.shape[1], 5, 12), (h.stride(0), 36, 6, 1)
    ),
    "rows put where a mask is true": lambda m, h: (
        h.movedim(1, -1)
        .masked_scatter(
            (torch.arange(36) % 3 == 0).view(6, 6, 1).expand(2, 6, 6, h.shape[1]), 2 * h.movedim(1, -1)
        )
        .movedim(-1, 1)
    ),
    "rows put in place where a mask is true": lambda m, h: (
        (h.movedim(1, -1) + 0)
        .masked_scatter_((torch.arange(36) % 3 == 0).view(6, 6, 1), 2 * h.movedim(1, -1))
        .movedim(-1, 1)
    ),
    "checked": lambda m, h: (
        h * bool(aten._is_all_true(torch.ones(3) > 0)) * bool(aten._is_any_true(torch.ones(3) > 0))
    ),
    "rows averaged beside channels": lambda m, h: F.avg_pool2d(h.movedim(1, -1), (2, 1)).movedim(-1, 1),
    "first row": lambda m, h: h[:, :, 0][..., None],
    "narrowed pixels": lambda m, h: h.narrow(2, 1, 3),
    "matrix by vector": lambda m, h: (h.flatten(0, 2) @ m.v).view(h.shape[0], -1, 6, 1),
    "the first channel stays": lambda m, h: h[:, :1],
    "the fourth channel stays": lambda m, h: h[:, 3:4] * h,
    "spread of channels": lambda m, h: h / (1 + h.std(1, keepdim=True)),
    "variance of channels": lambda m, h: h / (1 + h.var(1, keepdim=True, correction=0)),
    "variance and mean": lambda m, h: h - torch.var_mean(h, 1, keepdim=True)[1],
    "spread and mean": lambda m, h: h / (1 + torch.std_mean(h, 1, keepdim=True)[0]),
    "copied views": lambda m, h: aten.slice_copy(aten.view_copy(h, h.shape), 2, 1, 3),
    "copied pieces": lambda m, h: torch.cat([p * 2 for p in aten.split_copy(h, h.shape[1] // 2, 1)], 1),
    "copied rows": lambda m, h: torch.stack(aten.unbind_copy(aten.expand_copy(h, (-1, -1, -1, -1)), 2), 2),
    "copied row": lambda m, h: aten.select_copy(h, 2, 0)[..., None],
    "narrowed by hand": lambda m, h: aten.narrow(h, 3, 1, 2),
    "unsafe pieces": lambda m, h: torch.cat(torch.unsafe_chunk(h, 2, 1)[::-1], 1),
    "shuffled natively": lambda m, h: aten.native_channel_shuffle(h, 2),
    "unsafe index": lambda m, h: aten._unsafe_index(h, [None, None, torch.tensor([0, 1])]),
    "unsafe view": lambda m, h: aten._unsafe_view(h, h.shape),
    "batched bias": lambda m, h: torch.baddbmm(
        h.flatten(2), h.flatten(2), m.square.expand(2, 36, 36)
    ).view_as(h),
    "kernel of one along channels": lambda m, h: F.conv1d(h.flatten(2).mT, m.kernel).mT.view(h.shape),
    "sorted pixels": lambda m, h: h.sort(2)[0],
    "best pixels": lambda m, h: h.topk(3, 3)[0],
    "cumulated product of pixels": lambda m, h: h.cumprod(3),
    "largest of a row": lambda m, h: h.max(3)[0][..., None],
    "place of the largest in a row": lambda m, h: h * h.argmax(3, keepdim=True),
    "product of a row": lambda m, h: h * h.prod(3, keepdim=True),
    "any of a row": lambda m, h: h * (h > 0).any(3, keepdim=True),
    "windows of pixels": lambda m, h: h.unfold(2, 2, 2).flatten(3),
    "gathered pixels": lambda m, h: h.flatten(2).gather(2, torch.arange(4).expand(2, h.shape[1], 4))[
        ..., None
    ],
    "scattered pixels": lambda m, h: h.scatter(2, h.argmin(2, keepdim=True), 0.5),
    "chosen rows": lambda m, h: h.index_select(2, torch.tensor([0, 2, 4])),
    "rows added": lambda m, h: h.index_add(2, torch.tensor([1, 0]), h[:, :, 2:4]),
    "row written": lambda m, h: aten.select_scatter(h, h[:, :, 0] * 2, 2, 0),
    "rows written": lambda m, h: aten.slice_scatter(h, h[:, :, :2] * 2, 2, 1, 3),
    "unfolded": lambda m, h: F.unfold(h, 3).unsqueeze(-1),
    "folded": lambda m, h: F.fold(F.unfold(h, 3), (6, 6), 3),
    "sampled": lambda m, h: F.grid_sample(h, h.new_zeros(2, 4, 4, 2), align_corners=False),
    "written in place": lambda m, h: h.index_put((torch.tensor([0]),), h.new_ones(())),
    "diagonal": lambda m, h: h * h.diagonal(dim1=2, dim2=3)[..., None],
    "added by place": lambda m, h: h.scatter_add(2, h.argmin(2, keepdim=True), h[:, :, :1]),
    "added by place, in place": lambda m, h: (h + 0).scatter_add_(2, h.argmin(2, keepdim=True), h[:, :, :1]),
    "largest by place": lambda m, h: h.scatter_reduce(2, h.argmin(2, keepdim=True), h[:, :, :1], "amax"),
    "largest by place, in place": lambda m, h: (h + 0).scatter_reduce_(
        2, h.argmin(2, keepdim=True), h[:, :, :1], "amax"
    ),
    "rows added in place": lambda m, h: (h + 0).index_add_(2, torch.tensor([1, 0]), h[:, :, 2:4]),
    "rows copied": lambda m, h: h.index_copy(2, torch.tensor([1, 0]), h[:, :, 2:4]),
    "smallest and largest": lambda m, h: h * torch.aminmax(h, dim=3, keepdim=True)[1],
    "cumulated largest": lambda m, h: h.cummax(2)[0],
    "spectrum of pixels": lambda m, h: torch.fft.fft2(h).abs(),
    "half a spectrum of pixels": lambda m, h: torch.fft.irfft2(torch.fft.rfft2(h), s=(6, 6)),
    "real and imaginary channels": lambda m, h: torch.view_as_real(torch.complex(h, 2 * h)).flatten(3),
    "complex channels": lambda m, h: torch.view_as_complex(torch.stack([h, -h], -1)).angle(),
    "polar channels": lambda m, h: torch.polar(h.abs(), h).conj().imag,
    "turned by a map": lambda m, h: F.grid_sample(
        h,
        F.affine_grid(torch.eye(2, 3).to(h.dtype).expand(2, 2, 3), list(h.shape), False),
        align_corners=False,
    ),
    "divided to whole numbers": lambda m, h: h * torch.floor_divide(h, 0.3),
    "repeated per channel": lambda m, h: h * torch.full((1, 1, 1), 0.5).repeat(h.shape[1], 1, 1),
    "repeated channels": lambda m, h: h.repeat(1, 2, 1, 1),
    "half the channels changed": lambda m, h: torch.cat(
        [h[:, : h.shape[1] // 2], 2 * h[:, h.shape[1] // 2 :]], 1
    ),
    "wrapped pixels": lambda m, h: F.pad(h, (1, 1, 1, 1), mode="circular"),
    "sampled 3d": lambda m, h: F.grid_sample(
        h[..., None], h.new_zeros(2, 4, 4, 1, 3), align_corners=False
    ).squeeze(-1),
    "cumulated product": lambda m, h: h.cumprod(1),
    "product": lambda m, h: h * h.prod(1, keepdim=True),
    "median": lambda m, h: h * h.median(1, keepdim=True)[0],
    "any": lambda m, h: h * (h > 0).any(1, keepdim=True),
    "all": lambda m, h: h * (h > 0).all(1, keepdim=True),
    "median of numbers": lambda m, h: h * h.nanmedian(1, keepdim=True)[0],
    "extremes": lambda m, h: h - torch.aminmax(h, dim=1, keepdim=True)[0],
    "largest so far": lambda m, h: h.cummax(1)[0],
    "smallest so far": lambda m, h: h.cummin(1)[0],
    "log-cumulated channels": lambda m, h: h.logcumsumexp(1),
    "largest of two channels": lambda m, h: F.max_pool3d(h[:, None], (2, 1, 1))[:, 0],
    "mean of two channels": lambda m, h: F.avg_pool2d(h.flatten(2), (2, 1)).unflatten(2, (6, 6)),
    "sum of numbers": lambda m, h: h * h.nansum(1, keepdim=True),
    "how many": lambda m, h: h * h.count_nonzero(1)[:, None],
    "one distance": lambda m, h: h * torch.dist(h, h.flip(2)),
    "bounded pictures": lambda m, h: h.renorm(2, 0, 1.0),
    "random slope": lambda m, h: F.rrelu(h),
    "random slope in place": lambda m, h: F.rrelu(h + 0, inplace=True),
    "places among borders": lambda m, h: h * torch.bucketize(h, torch.linspace(-1, 1, 5)),
    "places among sorted borders": lambda m, h: (
        h * torch.searchsorted(torch.linspace(-1, 1, 5), h.contiguous())
    ),
    "among others": lambda m, h: h * torch.isin(torch.arange(6), torch.tensor([1, 2])),
    "cross products": lambda m, h: torch.linalg.cross(h[..., :3], h[..., 3:]),
    "blocks": lambda m, h: torch.block_diag(h[0].flatten(1), h[1].flatten(1))[None].unflatten(2, (8, 9)),
    "quarter turn": lambda m, h: torch.rot90(h, 1, (2, 3)),
    "half turn of channels": lambda m, h: torch.rot90(h, 2, (1, 2)),
    "quarter turn of channels": lambda m, h: torch.rot90(h, 1, (1, 2)).transpose(1, 2),
    "three quarters of channels": lambda m, h: torch.rot90(h, 3, (1, 2)).transpose(1, 2),
    "one of equals": lambda m, h: h * torch.full_like(h, 2.0)[:, 0, None],
    "last of expanded": lambda m, h: h * h.mean(1, keepdim=True).expand(h.shape)[:, -1, None],
    "filled row": lambda m, h: h.index_fill(2, torch.tensor([0]), 0.5),
    "filled row in place": lambda m, h: (h + 0).index_fill_(2, torch.tensor([0]), 0.5),
    "counted places": lambda m, h: h * torch.bincount(torch.tensor([0, 1, 1]), minlength=6),
    "rows by count": lambda m, h: h.repeat_interleave(torch.tensor([1, 2, 1, 0, 1, 1]), 2),
    "vectors multiplied and added": lambda m, h: torch.addr(h[0, :, 0], h[1, :, 0, 0], m.v)[None, ..., None],
    "values where a mask is true": lambda m, h: h * torch.ones(6, 6).masked_select(torch.eye(6) > 0),
    "inverses": lambda m, h: torch.linalg.inv(h + 9 * torch.eye(6)),
    "inverses without square": lambda m, h: torch.linalg.pinv(h),
    "determinants": lambda m, h: h * torch.linalg.det(h)[..., None, None],
    "logarithms of determinants": lambda m, h: (
        h * torch.linalg.slogdet(h + 9 * torch.eye(6))[1][..., None, None]
    ),
    "exponential of pixels": lambda m, h: torch.linalg.matrix_exp(h / 9),
    "singular values": lambda m, h: h * torch.linalg.svdvals(h)[..., None],
    "orthogonal rows": lambda m, h: torch.linalg.qr(h)[1].abs(),
    "own values": lambda m, h: h * torch.linalg.eigvalsh(h @ h.mT)[..., None],
    "triangles": lambda m, h: torch.linalg.cholesky(h @ h.mT + torch.eye(6)),
    "upper factors": lambda m, h: torch.linalg.lu(h)[2],
    "turning values": lambda m, h: h * torch.linalg.eigvals(h).abs()[..., None],
    "turning vectors": lambda m, h: h * torch.linalg.eig(h)[0].abs()[..., None],
    "factors": lambda m, h: torch.linalg.lu_factor(h)[0],
    "solved for pixels": lambda m, h: torch.linalg.solve(h + 9 * torch.eye(6), h),
    "solved for channels": lambda m, h: torch.linalg.solve(
        3 * torch.eye(36, dtype=h.dtype).expand(2, 36, 36), h.flatten(2).mT
    ).mT.unflatten(2, (6, 6)),
    "solved by triangles": lambda m, h: torch.linalg.solve_triangular(
        h.triu() + 9 * torch.eye(6), h, upper=True
    ),
    "solved by a factor": lambda m, h: torch.cholesky_solve(
        h.flatten(2).mT, 3 * torch.eye(36, dtype=h.dtype).expand(2, 36, 36)
    ).mT.unflatten(2, (6, 6)),
    "thirds by sections": lambda m, h: torch.cat(
        [p * (i + 1) for i, p in enumerate(torch.tensor_split(h.repeat(1, 3, 1, 1), 3, 1))], 1
    ),
    "halves by sections": lambda m, h: torch.mul(*torch.tensor_split(h, 2, dim=1)),
    "the first of two halves": lambda m, h: torch.hsplit(h, 2)[0],
    "cut at places": lambda m, h: torch.tensor_split(h, (2, 4), 1)[2] * 2,
    "product with a sparse matrix": lambda m, h: torch.sparse.mm(
        torch.eye(36, dtype=h.dtype), h[0].flatten(1).mT
    ).mT.unflatten(1, (6, 6))[None],
    "distinct rows": lambda m, h: h[:, :, torch.unique(torch.tensor([0, 2, 2]))],
}

STAYS: dict[str, Step] = {
    "values put where a mask is true": lambda m, h: h.masked_scatter(
        (torch.arange(8 * 36) % 3 == 0).view(8, 6, 6), 2 * h
    ),
    "pixels by hand, with a channel in the window": lambda m, h: h.contiguous().as_strided(
        (2, 7, 72), (288, 36, 1)
    )[..., None],
    "histogram": lambda m, h: h * h.histc(8)[3],
    "matrices by group": lambda m, h: F.grouped_mm(
        h[:, :, 0, :4].flatten(0, 1),
        torch.eye(4, 8).repeat(2, 1, 1),
        offs=torch.tensor([len(h.flatten(0, 1)) // 2, len(h.flatten(0, 1))], dtype=torch.int32),
    ).view(2, -1, 8, 1),
    "rolled channels": lambda m, h: h.roll(1, 1),
    "sorted channels": lambda m, h: h.sort(1)[0],
    "gathered channels": lambda m, h: h.gather(1, torch.zeros(2, 8, 6, 6, dtype=torch.long)),
    "scattered": lambda m, h: h.scatter(1, torch.zeros(2, 1, 6, 6, dtype=torch.long), h[:, :1]),
    "chosen channels": lambda m, h: h.index_select(1, torch.tensor([0, 2, 4])),
    "indexed channels": lambda m, h: h[:, torch.tensor([0, 2, 4])],
    "unfolded channels": lambda m, h: h.unfold(1, 2, 2).flatten(-2),
    "largest and its place": lambda m, h: torch.mul(*h.max(1, keepdim=True)) * h,
    "kth channel": lambda m, h: h * h.kthvalue(2, 1, keepdim=True)[0],
    "mean cross entropy": lambda m, h: h * F.binary_cross_entropy_with_logits(h, h.sigmoid()),
    "likelihood of channels": lambda m, h: (
        h * F.cross_entropy(h, torch.zeros(h.shape[0], *h.shape[2:], dtype=torch.long))
    ),
    "likelihood of labels": lambda m, h: h * F.cross_entropy(h.mean((2, 3)), torch.arange(h.shape[0])),
    "place of the largest": lambda m, h: h * h.argmax(1, keepdim=True),
    "place of the smallest": lambda m, h: h * h.argmin(1, keepdim=True),
    "inverse of channels": lambda m, h: (
        torch.linalg.inv(h.flatten(2) @ h.flatten(2).mT + torch.eye(h.shape[1])) @ h.flatten(2)
    ).view_as(h),
    "equations on the right": lambda m, h: torch.linalg.solve(
        torch.eye(h.shape[1], dtype=h.dtype).expand(2, -1, -1), h.flatten(2).mT, left=False
    ).mT.unflatten(2, (6, 6)),
    "crossed channels": lambda m, h: torch.linalg.cross(h[:, :3], h[:, 3:6], dim=1) + h[:, 5:],
    "filled channel": lambda m, h: h.index_fill(1, torch.tensor([0]), 0.5),
    "put by number": lambda m, h: h.put(torch.tensor([0]), torch.ones(1, dtype=h.dtype)),
    "put by number in place": lambda m, h: (h + 0).put_(torch.tensor([0]), torch.ones(1, dtype=h.dtype)),
    "taken by number": lambda m, h: h * h.take(torch.tensor([3])),
    "channels by count": lambda m, h: h.repeat_interleave(torch.full((8,), 1), 1),
    "counts of channels": lambda m, h: h * torch.bincount(h[0, :, 0, 0].abs().long(), minlength=4)[:1],
    "overlapping channels": lambda m, h: F.max_pool3d(h[:, None], (2, 1, 1), (1, 1, 1))[:, 0],
    "largest so far and its place": lambda m, h: torch.mul(*h.cummax(1)),
    "likelihood of a sequence": lambda m, h: (
        h
        * F.ctc_loss(
            h.mean(3).permute(2, 0, 1).log_softmax(-1),
            torch.tensor([[1, 2], [3, 1]]),
            torch.tensor([6, 6]),
            torch.tensor([2, 1]),
        )
    ),
    "slice written": lambda m, h: aten.slice_scatter(h, h[:, :2] * 2, 1, 0, 2),
    "index written": lambda m, h: aten.select_scatter(h, h[:, 0] * 2, 1, 0),
    "strided by hand": lambda m, h: h.as_strided((2, 8, 6, 6), h.stride()),
    "spectrum of channels": lambda m, h: torch.fft.fft(h, dim=1).real,
    "half a spectrum of channels": lambda m, h: torch.fft.irfft(torch.fft.rfft(h, dim=1), n=8, dim=1),
    "numbered channels": lambda m, h: h * torch.arange(h.shape[1])[:, None, None],
    "channels on a line": lambda m, h: h * torch.linspace(0, 1, h.shape[1])[:, None, None],
}


TAKE_STATISTICS = (
    "largest", "smallest", "minimum over channels", "log-sum-exp over channels", "spread of channels",
    "variance of channels", "variance and mean", "spread and mean", "best channels",
    "mean squared distance", "smooth distance", "robust distance", "cumulated product", "product", "median", "any",
    "all", "median of numbers", "extremes", "largest so far", "smallest so far", "log-cumulated channels",
    "last of expanded",
)  # fmt: skip

FLOAT32_KERNELS = ("matrices by group",)  # the proof has a float64 form of them, the bare network has none
SINGULAR_AT_ZERO = ("factors",)  # torch refuses the zeros that masking leaves


def around(name: str, step: Step, kept: bool) -> Callable[[int], Network]:
    def build(c: int) -> Network:
        a, v, kernel = conv(3, 8), nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(36, 36, 1) / 6)
        with torch.no_grad():
            width = step(
                Body(step, v=v, square=nn.Parameter(torch.eye(36)), kernel=kernel), a(image())
            ).shape[1]
        model = Body(
            lambda m, x: m.b(F.relu(m.i(step(m, m.a(x))))),
            a=a,
            i=conv(width, c),
            b=conv(c, 5),
            v=v,
            square=nn.Parameter(torch.eye(36)),
            kernel=kernel,
        )
        return Network(
            model=model,
            example=image(),
            shrinks=("i.weight", "b.weight") if kept else ("a.weight", "i.weight", "b.weight"),
            zeroing=name not in (*TAKE_STATISTICS, *FLOAT32_KERNELS, *SINGULAR_AT_ZERO),
        )

    return build


OP_BUILDERS = {
    **{name: around(name, step, False) for name, step in FOLLOWED.items()},
    **{name: around(name, step, True) for name, step in STAYS.items()},
}
ALL_BUILDERS = {**BUILDERS, **OP_BUILDERS}

"""Smaller kernels and longer strides."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import nn

from penjing.core._edits import AdjustComponent
from penjing.structure import CONVOLUTION
from penjing.surgery._adjustments._propose import Misfit, Site, convolution_options, proposer
from penjing.surgery._adjustments._registry import Options, adjustment, pair
from penjing.surgery._adjustments._tensors import convolution, learnt, perhaps, settings, tensor

KERNEL, STRIDE = "kernel", "stride"


def _by(sizes: object) -> str:
    return "x".join(map(str, sizes))  # type: ignore[call-overload]


@adjustment(KERNEL, tell=lambda o: f"its kernel shrank to {_by(o['size'])}")
def shrink_kernel(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """The middle of the kernel, with as much less padding: outputs lie where they lay."""
    (layer,) = modules
    weight, size, own = tensor(layer, options["weight"]), pair(options, "size"), settings(options)
    cut = [(n - k) // 2 for n, k in zip(weight.shape[2:], size, strict=True)]
    wrong = [k for n, k, c in zip(weight.shape[2:], size, cut, strict=True) if k < 1 or c < 0 or (n - k) % 2]
    own["padding"] = [p - c * d for p, c, d in zip(own["padding"], cut, own["dilation"], strict=True)]
    if wrong or min(own["padding"]) < 0:
        raise ValueError(
            f"a kernel of {_by(weight.shape[2:])} with this padding cannot shrink to {_by(size)}"
        )
    middle = weight[(..., *(slice(c, c + k) for c, k in zip(cut, size, strict=True)))]
    made = convolution(middle, perhaps(layer, options.get("bias")), learnt(layer, options["weight"]), **own)
    return (nn.Sequential(OrderedDict(smaller=made)),)


@proposer
def _kernels(site: Site) -> Iterator[AdjustComponent | Misfit]:
    for part in site.parts.of(CONVOLUTION):
        args, kernel = part.op.args, site.weight_shape(part)[2:]
        size = tuple(max(1, n - 2) for n in kernel)
        cut = [(n - k) // 2 for n, k in zip(kernel, size, strict=True)]
        if size == tuple(kernel):
            yield Misfit(kind=KERNEL, module=part.path, why="its kernel is 1x1")
        elif any(n % 2 == 0 for n in kernel):
            yield Misfit(kind=KERNEL, module=part.path, why="its kernel has no middle")
        elif any(p < c * d for p, c, d in zip(args[4], cut, args[5], strict=True)):
            yield Misfit(kind=KERNEL, module=part.path, why="it is not padded: its outputs would be more")
        else:
            yield site.edit(KERNEL, part, size=size, **convolution_options(part))


@adjustment(STRIDE, tell=lambda o: f"its stride grew to {_by(o['stride'])}")
def longer_stride(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """The same kernels at fewer places; what follows reads a smaller picture."""
    (layer,) = modules
    values = tensor(layer, options["weight"]), perhaps(layer, options.get("bias"))
    made = convolution(*values, learnt(layer, options["weight"]), **settings(options))
    return (nn.Sequential(OrderedDict(sparser=made)),)


@proposer
def _strides(site: Site) -> Iterator[AdjustComponent | Misfit]:
    for part in site.parts.of(CONVOLUTION):
        if min(site.shape(part.made)[2:]) < 8:
            yield Misfit(
                kind=STRIDE, module=part.path, why="what it gives has fewer than 8 places along a side"
            )
            continue
        options = convolution_options(part)
        options["stride"] = tuple(2 * s for s in part.op.args[3])
        yield site.edit(STRIDE, part, **options)

"""Where parameters meet data: matrix products and convolutions as they run, whatever module they belong to."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.structure._network._walk import every_path, named_parameters
from penjing.tasks import at_length

aten = torch.ops.aten
_RESHAPES = (aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias)


class Parameters:
    """Which parameter a tensor is, or is a view of."""

    def __init__(self, model: nn.Module) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, str] = {}
        for name, parameter in named_parameters(every_path(model)):
            place = _place(parameter)
            if parameter.numel() and place not in self._names:
                self._names[place], self.tensors[name] = name, parameter.detach()

    def name(self, item: Any) -> str | None:
        return self._names.get(_place(item)) if isinstance(item, Tensor) and item.numel() else None


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@dataclass(frozen=True, slots=True)
class Product:
    """One parameter contracted with data: y = W phi, `rows` by `rows`.

    `weight` is the parameter, or a view of it, as the operator reads it: [k, n] of a matrix product, [g, k, n] of a
    batched one, [out, in / groups, *kernel] of a convolution, whose stride, padding, dilation and groups are
    `settings`. The operator gives `alpha` times the product and adds `beta` times `bias`. `left` says that the
    parameter is the left matrix, [m, k]. `lead` are the axes that the rows of data were made of, where it was a tensor
    of more axes before. `part` is where in its memory the parameter is read from.
    """

    name: str
    data: Tensor
    weight: Tensor
    bias: Tensor | None = None
    settings: tuple[Any, ...] | None = None
    left: bool = False
    lead: tuple[int, ...] = ()
    alpha: float = 1
    beta: float = 1

    @property
    def part(self) -> int:
        return int(self.weight.storage_offset())

    @property
    def matrices(self) -> Tensor:
        """The weight as it counts, [groups, outputs, inputs]; a view where memory allows."""
        weight = self.weight if self.alpha == 1 else self.alpha * self.weight
        if self.settings is not None:
            return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        if self.left:
            return weight.unsqueeze(0) if weight.dim() == 2 else weight
        return weight.mT.unsqueeze(0) if weight.dim() == 2 else weight.mT

    def write(self, matrices: Tensor) -> None:
        """Replace the parameter's values, in place."""
        weight, values = self.weight, (matrices / self.alpha).to(self.weight.dtype)
        if self.settings is not None:
            weight.copy_(values.reshape(weight.shape))
        else:
            values = values if self.left else values.mT
            weight.copy_(values.reshape(weight.shape))

    @property
    def groups(self) -> int:
        if self.settings is not None:
            return int(self.settings[3])
        return self.weight.shape[0] if self.weight.dim() == 3 else 1

    @property
    def positions(self) -> int:
        """How many positions a group sees."""
        if self.settings is not None:
            return self.data.shape[0] * math.prod(self._extent())
        return self.data.shape[-1 if self.left else -2]

    def _extent(self) -> list[int]:
        assert self.settings is not None
        stride, padding, dilation, _ = self.settings
        sizes = zip(self.data.shape[2:], self.weight.shape[2:], stride, padding, dilation, strict=True)
        return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]

    def phi(self, positions: Tensor | None) -> Tensor:
        """What the weight meets at these positions (all of them), [groups, positions, inputs]."""
        if self.settings is None:
            data = self.data.mT if self.left else self.data
            found = data.unsqueeze(0) if data.dim() == 2 else data
            return found if positions is None else found[:, positions]
        return self._windows(positions)

    def _windows(self, positions: Tensor | None) -> Tensor:
        assert self.settings is not None
        stride, padding, dilation, groups = self.settings
        x, kernel = self.data, self.weight.shape[2:]
        rank = len(kernel)
        if any(padding):
            x = F.pad(x, [n for amount in reversed(padding) for n in (amount, amount)])
        for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
            x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
        extent = x.shape[2 : 2 + rank]
        x = x.movedim(1, 1 + rank)  # [batch, *extent, channels, *kernel]
        if positions is None:
            found = x.reshape(-1, groups, self.weight[0].numel())
        else:
            places = torch.unravel_index(positions, (x.shape[0], *extent))
            found = x[places].reshape(len(positions), groups, -1)
        return found.movedim(1, 0)

    def alike(self, other: Tensor) -> Tensor | None:
        """Another tensor in the layout of what the operator gives; None where it has none of that size."""
        if self.settings is not None:
            return other if tuple(other.shape) == self._shape() else None
        if self.left or self.weight.dim() != 2 or not other.is_contiguous():
            return None
        return other.view(self._shape()) if other.numel() == math.prod(self._shape()) else None

    def _shape(self) -> tuple[int, ...]:
        """Of what the operator gives."""
        if self.settings is not None:
            return self.data.shape[0], self.weight.shape[0], *self._extent()
        if self.left:
            return *self.weight.shape[:-1], self.data.shape[-1]
        return *self.data.shape[:-1], self.weight.shape[-1]

    @property
    def offset(self) -> Tensor | None:
        """The bias, where it is one number per output."""
        if self.bias is None or not self.bias.is_contiguous():
            return None
        groups, outputs, shape = self.groups, self._outputs(), tuple(self.bias.shape)
        if self.settings is not None or (groups == 1 and not self.left and shape == (outputs,)):
            return self.bias
        shape = (1,) * (3 - len(shape)) + shape
        return self.bias if shape == ((groups, outputs, 1) if self.left else (groups, 1, outputs)) else None

    def _outputs(self) -> int:
        """Of a group."""
        if self.settings is not None:
            return self.weight.shape[0] // self.groups
        return self.weight.shape[-2 if self.left else -1]

    def added(self, positions: Tensor | None, kept: Tensor | None = None) -> Tensor:
        """What the operator adds there, as `results` has it; one position stands for all of a convolution."""
        assert self.bias is not None
        if self.settings is not None:
            y = self.bias.view(1, -1, *(1,) * (self.weight.dim() - 2))
            return self.results(y, None, kept)
        return self.beta * self.results(self.bias.expand(self._shape()), positions, kept)

    def results(self, y: Tensor, positions: Tensor | None, kept: Tensor | None = None) -> Tensor:
        """What the operator gave there, [groups, positions, outputs]; only the outputs `kept` if asked for."""
        if self.settings is not None:
            y = y if kept is None else y.index_select(1, kept)
            y = y.movedim(1, -1).flatten(0, -2)
            y = y if positions is None else y[positions]
            return y.reshape(len(y), self.groups, -1).movedim(1, 0)
        y = y.mT if self.left else y
        y = y.unsqueeze(0) if y.dim() == 2 else y
        y = y if positions is None else y[:, positions]
        return y if kept is None else y.index_select(2, kept)


class Rows:
    """Remembers what tensors were before they became matrices, for the calls that follow at once."""

    def __init__(self) -> None:
        self._recent: deque[tuple[ref[Tensor], tuple[int, ...]]] = deque(maxlen=4)

    def note(self, op: Any, args: Sequence[Any], result: Any) -> None:
        if op.overloadpacket in _RESHAPES and args[0].dim() > 2:
            self._recent.append((ref(result), tuple(args[0].shape)))

    def lead(self, data: Tensor) -> tuple[int, ...]:
        shape = next((shape for held, shape in self._recent if held() is data), ())
        sizes = (shape[:k] for k in range(2, len(shape)))
        return next((lead for lead in sizes if math.prod(lead) == len(data)), ())


def real_positions(item: Product, mask: Tensor | None, examples: int) -> Tensor | None:
    """The positions of a product that are no padding; None for all.

    `mask` [examples, n] is false where a row is padding. It is asked where positions run along examples and one other
    axis, in either order; elsewhere all count.
    """
    if mask is None:
        return None
    if item.settings is not None:
        lead = (examples, item.positions // examples) if item.data.dim() == 3 else ()
    else:
        lead = () if item.left else item.lead
    if lead and lead[0] == examples:
        stays = at_length(mask, examples, item.positions // examples, item.data.device).flatten()
    elif len(lead) == 2 and lead[1] == examples:
        stays = at_length(mask, examples, lead[0], item.data.device).T.flatten()
    else:
        return None
    return None if bool(stays.all()) else stays.nonzero().flatten()


def product(
    op: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    parameters: Parameters,
    rows: Rows | None = None,
) -> Product | None:
    """The call as a parameter's product with data; None for any other call."""
    packet = op.overloadpacket
    if packet is aten.convolution:
        x, weight, bias, stride, padding, dilation, transposed, _, groups = args
        name = parameters.name(weight)
        if name is None or transposed or parameters.name(x) is not None:
            return None
        rank = weight.dim() - 2
        settings = (*(tuple(_each(n, rank)) for n in (stride, padding, dilation)), groups)
        return Product(name, x, weight, bias, settings)
    if packet not in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm):
        return None
    added = packet in (aten.addmm, aten.baddbmm)
    left, right = args[1:3] if added else args[:2]
    names = parameters.name(left), parameters.name(right)
    if (names[0] is None) == (names[1] is None):
        return None
    alpha, beta = kwargs.get("alpha", 1), kwargs.get("beta", 1)
    weight, bias = left if names[1] is None else right, args[0] if added and beta else None
    if not alpha or _repeats(weight):
        return None
    if names[1] is not None:
        lead = () if rows is None else rows.lead(left)
        return Product(names[1], left, right, bias, lead=lead, alpha=alpha, beta=beta)
    return Product(str(names[0]), right, left, bias, left=True, alpha=alpha, beta=beta)


def _repeats(weight: Tensor) -> bool:
    """Whether several of its numbers are one in memory."""
    return any(s == 0 and n > 1 for s, n in zip(weight.stride(), weight.shape, strict=True))


def _each(numbers: Sequence[int], rank: int) -> Sequence[int]:
    return numbers if len(numbers) == rank else [numbers[0]] * rank


def kept_outputs(item: Product, removed: Mapping[int, Sequence[int]], whole: Tensor) -> Tensor | None:
    """Which outputs of an original's product are left in the smaller network; None where all are.

    `removed` is what its parameter `whole` loses per dim.
    """
    return _kept(item, removed, whole, 0 if item.settings is not None else item.weight.dim() - 1 - item.left)


def kept_inputs(item: Product, removed: Mapping[int, Sequence[int]], whole: Tensor) -> Tensor | None:
    """Which inputs of an original's matrix product are left; None where all are."""
    return _kept(item, removed, whole, item.weight.dim() - 2 + item.left)


def _kept(item: Product, removed: Mapping[int, Sequence[int]], whole: Tensor, axis: int) -> Tensor | None:
    """The indices of an axis of the operand that any index of its parameter stays at."""
    if not removed:
        return None
    mask = torch.empty_strided(whole.shape, whole.stride(), dtype=torch.bool, device=whole.device).fill_(True)
    for dim, indices in removed.items():
        mask.index_fill_(dim, torch.tensor(indices, device=whole.device), False)
    weight = item.weight
    seen = mask.as_strided(weight.shape, weight.stride(), weight.storage_offset() - whole.storage_offset())
    others = tuple(d for d in range(weight.dim()) if d != axis)
    stays = seen.any(others) if others else seen
    return None if bool(stays.all()) else torch.nonzero(stays).flatten()

"""Where forwards of a calibration stop, and what they show there."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penjing.recover._norms import address
from penjing.structure import (
    START,
    Meeting,
    Norm,
    Parameters,
    Place,
    Product,
    Rows,
    Survey,
    norm,
    place_of,
    product,
)


@dataclass(frozen=True, slots=True)
class ProductStation:
    """A weight that meets its data, what the product gave where it has run, and the stream it will be added to;
    `name` is the weight's, and which part of it."""

    name: str
    product: Product
    result: Tensor | None
    partner: Tensor | None


@dataclass(frozen=True, slots=True)
class NormStation:
    """A batch norm about to run with running statistics."""

    norm: Norm

    @property
    def name(self) -> int:
        return address(self.norm)

    @staticmethod
    def estimate(stations: Sequence["NormStation"]) -> None:
        """Give the running statistics the mean and variance over all forwards (EagleEye, ECCV 2020), in place."""
        data = [s.norm.data for s in stations]
        dims = [d for d in range(data[0].dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(data[0].dim())]
        count = sum(x.numel() // x.shape[1] for x in data)
        mean = torch.stack([x.sum(dims, dtype=torch.float64) for x in data]).sum(0) / count
        around = mean.to(data[0].dtype).view(shape)
        spread = torch.stack([(x - around).square().sum(dims, dtype=torch.float64) for x in data]).sum(0)
        stations[0].norm.mean.copy_(mean)
        stations[0].norm.var.copy_(spread / max(1, count - 1))


@dataclass(frozen=True, slots=True)
class Fold:
    """What a batch norm shall do to its input, x -> (x - origin) * slope + bias, whatever its statistics become."""

    slope: Tensor
    origin: Tensor

    def into(self, norm: Norm) -> None:
        """Change the weight and bias of a norm with new statistics, in place."""
        assert norm.weight is not None
        assert norm.bias is not None
        norm.bias.add_(self.slope * (norm.mean - self.origin))
        norm.weight.copy_(self.slope * (norm.var + norm.eps).sqrt())


class Forward:
    """What one forward shows at its stops: before a product of `once` runs, or `after`; before the batch norms
    of `norms`."""

    def __init__(
        self,
        parameters: Parameters,
        survey: Survey,
        once: Mapping[str, Meeting],
        norms: Collection[int],
        *,
        after: bool,
    ) -> None:
        self._parameters, self._norms, self._after = parameters, norms, after
        self._once = {(m.name, m.part): m for key, m in survey.once.items() if key in once}
        partners = [m.partner for m in self._once.values() if m.partner is not None]
        self._wanted = Counter(partners)
        self._held: dict[Place, Tensor] = {}
        self._here, self._rows = START, Rows()

    def watch(
        self, op: Any, args: Any, kwargs: Any, run: Callable[[], Any], stop: Callable[[Any], None]
    ) -> Any:
        self._here = self._here.then(op)
        item = product(op, args, kwargs, self._parameters, self._rows)
        meeting = self._once.get((item.name, item.part)) if item is not None else None
        if not self._after:
            self._before(op, args, item, meeting, stop)
        result = run()
        self._rows.note(op, args, result)
        if self._after and item is not None and meeting is not None:
            stop(ProductStation(meeting.key, item, result, self._partner(item, meeting)))
        if self._here in self._wanted:
            self._held[self._here] = result[0] if isinstance(result, (tuple, list)) else result
        if item is not None:
            self._here = place_of(item)
        return result

    def _before(
        self, op: Any, args: Any, item: Product | None, meeting: Meeting | None, stop: Callable[[Any], None]
    ) -> None:
        if item is not None and meeting is not None:
            stop(ProductStation(meeting.key, item, None, self._partner(item, meeting)))
        else:
            found = norm(op, args)
            if found is not None and address(found) in self._norms:
                stop(NormStation(found))

    def _partner(self, item: Product, meeting: Meeting) -> Tensor | None:
        """The stream that the product is added to, laid out as the product's result is."""
        found = self._held.get(meeting.partner) if meeting.partner is not None else None
        if found is None or meeting.partner is None:
            return None
        self._wanted[meeting.partner] -= 1
        if not self._wanted[meeting.partner]:
            del self._held[meeting.partner]
        return item.alike(found)

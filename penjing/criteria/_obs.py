"""Optimal brain surgeon, unit by unit: what the loss rises by once the rest has made up for what went."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from penjing.core import UsageError
from penjing.core._groups import PruneGroup, Slot
from penjing.criteria._calibration import batches_of, gradients, inputs_of, run_batch
from penjing.criteria._registry import Context, Score, criterion, remarked
from penjing.structure import (
    Parameters,
    Product,
    Rows,
    fast_paths_off,
    kernels_written_out,
    output_tensors,
    product,
    real_positions,
    tensors_of,
)
from penjing.tasks import padding_mask

aten = torch.ops.aten
RIDGE = 0.01
POSITIONS = 20_000
WIDEST = 1024  # inputs of a convolution's window; wider ones are taken channel by channel
SHARE, CHOICE = 32, 4
Key = tuple[str, int]


@criterion("obs", in_loss="cumulative")
def obs(model: nn.Module, context: Context) -> Score:
    """The rise of the loss, in nats, when this unit and all that go before it are gone and what reads them is refitted.

    Greedy optimal brain surgeon (Hassibi & Stork, 1993; in groups as in ZipLM, Kurtic et al., NeurIPS 2023, eq. 3):
    units go in the order of tr(W_B (H^-1_BB)^-1 W_B^T) / 2, summed over all weights that read them, B a unit's columns,
    H = C + 0.01 mean(diag C) I the covariance of what comes in (around its mean: a bias makes up for that), W times the
    root of the mean squared gradient of each output, summed over an example's positions; W and H^-1 are downdated after
    each. The score is the sum so far, so one pass ranks every width, and scores compare across groups.

    Needs `calibration`; costs a forward and backward pass per batch (at most 50), d^3 per weight of d inputs, and two
    matrices d x d of memory for each. Gradients are those of the log-probability of labels drawn from the outputs of
    the network, each taken as logits over its last axis (the empirical Fisher vanishes on fitted data); others
    are taken for logits too. Windows of more than 1,024 inputs are taken channel by channel. Units that no such weight
    reads are scored by what their own outputs carry; batched products and transposed convolutions are not seen, and the
    plan's policies and a run's notes say so. It is about the second order, one group at a time.
    """
    seen = _gather(model, batches_of("obs", context, loss=False), context.seed)

    @torch.no_grad()
    def score(group: PruneGroup, model: nn.Module) -> np.ndarray:
        readers = [r for slot in group.slots for r in seen.readers(slot)]
        if not readers:
            return seen.carried(group)
        return cumulative(readers, len(group))

    return remarked("obs", score, seen.remarks())


@dataclass(slots=True)
class Met:
    """A weight's inputs, per group of a convolution, and the energy of its outputs' gradients."""

    product: Product
    channelwise: bool
    count: int = 0
    examples: int = 0
    first: Tensor | None = None
    second: Tensor | None = None
    energy: Tensor | None = None

    def add(self, phi: Tensor) -> None:
        """`phi` is [groups, positions, inputs]."""
        phi = phi.double() if phi.dtype is torch.float64 else phi.float()
        sums = torch.stack([rows.sum(0, dtype=torch.float64) for rows in phi])
        squares = torch.stack([(rows.T @ rows).double() for rows in phi])
        self.first = sums if self.first is None else self.first + sums
        self.second = squares if self.second is None else self.second + squares
        self.count += phi.shape[1]

    def covariance(self) -> Tensor:
        """[groups, inputs, inputs]."""
        assert self.first is not None
        assert self.second is not None
        mean = self.first / self.count
        return self.second / self.count - mean.unsqueeze(2) * mean.unsqueeze(1)

    def weighted(self) -> Tensor:
        """W [groups, outputs, inputs], each output times the root of its gradient's energy per example."""
        weight = self.product.matrices.double()
        groups, outputs, _ = weight.shape
        energy = torch.zeros(1) if self.energy is None else self.energy / max(1, self.examples)
        scale = energy.double().sqrt().expand(groups * outputs).reshape(groups, outputs, 1)
        scaled = weight * scale.to(weight.device)
        if self.channelwise:
            channels = self.product.weight.shape[1]
            scaled = scaled.reshape(groups, outputs, channels, -1).movedim(3, 1).flatten(1, 2)
        return scaled


@dataclass(frozen=True, slots=True)
class Reader:
    """A weight [o, d] that reads units: the columns [units, k] of each, and the covariance of its inputs."""

    weight: Tensor
    covariance: Tensor
    columns: Tensor


def cumulative(readers: Sequence[Reader], units: int) -> np.ndarray:
    """Per unit the error summed over the units that greedy elimination takes first, and itself.

    A 32nd of what is left goes at a time, chosen one by one among four times as many that would cost least by
    themselves; below 64 units that is one by one.
    """
    states = [_State.of(reader) for reader in readers]
    scores, total, left = np.zeros(units), 0.0, np.arange(units)
    while len(left):
        count = max(1, len(left) // SHARE)
        few = _costs(states).argsort(stable=True)[: CHOICE * count if count > 1 else 1]
        taken = []
        for place, cost in _greedy([state.part(few) for state in states], count):
            total += max(0.0, cost) / 2
            taken.append(int(few[place]))
            scores[left[taken[-1]]] = total
        states = [state.without(taken) for state in states]
        left = np.delete(left, taken)
    return scores


def _greedy(states: list["_State"], count: int) -> Iterator[tuple[int, float]]:
    """The first units to go, by their places, and what each costs."""
    places = list(range(states[0].units))
    for _ in range(count):
        costs = _costs(states)
        unit = int(costs.argmin())
        yield places.pop(unit), float(costs[unit])
        states = [state.without([unit]) for state in states]


def _costs(states: Sequence["_State"]) -> Tensor:
    return torch.stack([state.costs() for state in states]).sum(0).cpu()


@dataclass(frozen=True, slots=True)
class _State:
    """The columns [o, units * width] of units that are left, and H^-1 at them."""

    weight: Tensor
    inverse: Tensor
    width: int

    @staticmethod
    def of(reader: Reader) -> "_State":
        scale = reader.covariance.diagonal().mean().clamp_min(1e-12)
        eye = torch.eye(len(reader.covariance), dtype=torch.float64, device=reader.covariance.device)
        inverse = torch.linalg.inv(reader.covariance + RIDGE * scale * eye)
        columns = reader.columns.flatten()
        return _State(reader.weight[:, columns], inverse[columns][:, columns], reader.columns.shape[1])

    @property
    def units(self) -> int:
        return len(self.inverse) // self.width

    def costs(self) -> Tensor:
        """tr(W_B (H^-1_BB)^-1 W_B^T) of every unit."""
        if self.width == 1:
            return self.weight.square().sum(0) / self.inverse.diagonal().clamp_min(1e-300)
        places = torch.arange(len(self.inverse), device=self.inverse.device).view(-1, self.width)
        blocks = self.inverse[places.unsqueeze(2), places.unsqueeze(1)]
        parts = self.weight.T.reshape(self.units, self.width, -1)
        return (torch.linalg.solve(blocks, parts) * parts).sum((1, 2))

    def part(self, units: Tensor) -> "_State":
        """These units as if there were no others."""
        columns = self._columns(units)
        return _State(self.weight[:, columns], self.inverse[columns][:, columns], self.width)

    def without(self, units: Sequence[int]) -> "_State":
        gone = self._columns(torch.tensor(units))
        stays = torch.ones(len(self.inverse), dtype=torch.bool, device=gone.device)
        stays[gone] = False
        rows = self.inverse[gone]
        across = rows[:, stays]
        made = torch.linalg.solve(rows[:, gone], across)
        weight = self.weight[:, stays] - self.weight[:, gone] @ made
        return _State(weight, self.inverse[stays][:, stays] - across.T @ made, self.width)

    def _columns(self, units: Tensor) -> Tensor:
        found = units.unsqueeze(1) * self.width + torch.arange(self.width)
        return found.flatten().to(self.inverse.device)


@dataclass(slots=True)
class _Seen:
    parameters: Parameters
    met: dict[Key, Met] = field(default_factory=dict)
    unseen: dict[str, None] = field(default_factory=dict)

    def remarks(self) -> tuple[str, ...]:
        """What the scores leave out."""
        if not self.unseen:
            return ()
        return (f"does not count what these weights make of units: {', '.join(self.unseen)}",)

    def readers(self, slot: Slot) -> list[Reader]:
        """The weights that sum over a slot's dim, each with its columns per unit."""
        found = []
        for (name, _), one in self.met.items():
            if name != slot.name or not one.count:
                continue
            if _summed(one.product, self.parameters.tensors[name]) != slot.dim:
                continue
            columns = torch.from_numpy(slot.index)
            taps = 1 if one.channelwise or one.product.settings is None else one.product.weight[0, 0].numel()
            columns = (columns.unsqueeze(2) * taps + torch.arange(taps)).flatten(1)
            columns = columns.to(one.product.weight.device)
            parts = zip(one.weighted(), one.covariance(), strict=True)
            found += [Reader(weight, covariance, columns) for weight, covariance in parts]
        return found

    def carried(self, group: PruneGroup) -> np.ndarray:
        """Half the gradient energy times the variance of what a unit's own weights give."""
        total = np.zeros(len(group))
        for slot in group.slots:
            for (name, _), one in self.met.items():
                shape = self.parameters.tensors[name].shape
                if name == slot.name and slot.dim == 0 and one.count and len(shape) > 1:
                    weight = one.weighted()
                    if weight.shape[:2].numel() == shape[0]:
                        energy = ((weight @ one.covariance()) * weight).sum(2).flatten() / 2
                        total += energy.cpu().numpy()[slot.index].sum(1)
        order = np.argsort(total, kind="stable")
        scores = np.empty(len(group))
        scores[order] = np.cumsum(total[order])
        return scores


def _summed(item: Product, whole: Tensor) -> int | None:
    """The dim of its parameter that a product sums over; None where only a part of it is."""
    if item.settings is not None:
        return 1 if item.weight.shape == whole.shape else None
    axis = item.weight.dim() - (1 if item.left else 2)
    alike = [
        d
        for d, n in enumerate(whole.shape)
        if n == item.weight.shape[axis] and whole.stride(d) == item.weight.stride(axis)
    ]
    return alike[0] if len(alike) == 1 and whole.dim() == item.weight.dim() == 2 else None


def _gather(model: nn.Module, batches: Iterable[Any], seed: int) -> _Seen:
    """Covariances and gradient energies over at most 50 batches, in eval mode."""
    seen, generator = _Seen(Parameters(model)), torch.Generator().manual_seed(seed)
    with gradients(model), fast_paths_off(), kernels_written_out():
        for number, batch in enumerate(batches):
            inputs = inputs_of(batch)
            examples = _examples(inputs, number)
            with _Meeting(seen, padding_mask(inputs), examples, generator) as mode:
                outputs = run_batch(model, batch, number)
                mode.settle()
            _own_loss(outputs, generator, number).backward()
    return seen


def _examples(inputs: Any, number: int) -> int:
    found = [t for t in tensors_of(inputs) if t.dim()]
    if not found:
        raise UsageError(
            f"the inputs of calibration batch {number} are {type(inputs).__name__} without a tensor [examples, ...]: "
            "give tensors, such as torch.from_numpy(array)"
        )
    return len(found[0])


def _own_loss(outputs: Any, generator: torch.Generator, batch: int) -> Tensor:
    """Minus the log-probability of labels drawn from every output, in nats summed over examples."""
    found = [t for t in output_tensors(outputs) if t.is_floating_point() and t.requires_grad]
    if not found or not all(torch.isfinite(t).all() for t in found):
        raise UsageError(
            f"the outputs on calibration batch {batch} hold NaN or infinity, or depend on no parameter"
        )
    first, *others = (_surprise(t, generator) for t in found)
    return sum(others, first)


def _surprise(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Summed over examples, a mean over an example's positions; single numbers get Gaussian labels."""
    if logits.dim() < 2 or logits.shape[-1] == 1:
        rows = logits.reshape(len(logits) if logits.dim() else 1, -1)
        return (rows * torch.randn(rows.shape, generator=generator).to(rows)).mean(1).sum()
    log = logits.flatten(0, -2).log_softmax(-1)
    drawn = torch.multinomial(log.detach().exp().cpu(), 1, generator=generator).to(log.device)
    return -log.gather(1, drawn).sum() * len(logits) / len(log)


class _Meeting(TorchDispatchMode):
    """Notes what weights meet on the way forth, and asks autograd for what comes back."""

    def __init__(self, seen: _Seen, mask: Tensor | None, examples: int, generator: torch.Generator) -> None:
        super().__init__()
        self._seen, self._mask, self._examples, self._generator = seen, mask, examples, generator
        self._pending: tuple[Met, Product, Tensor] | None = None
        self._counted: set[Key] = set()
        self._rows_of = Rows()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # nothing is compiled here
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.settle()
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        item = product(func, args, kwargs, self._seen.parameters, self._rows_of)
        self._rows_of.note(func, args, result)
        if item is not None and item.settings is None and item.weight.dim() == 3:
            self._seen.unseen[item.name] = None
        elif item is not None:
            self._pending = self._met(item), item, result
        else:
            names = (self._seen.parameters.name(weight) for weight in _others(func.overloadpacket, args))
            self._seen.unseen |= {name: None for name in names if name is not None}
        return result

    def settle(self) -> None:
        """Hook the last product's result, which autograd knows by now and no operator has changed yet."""
        if self._pending is None:
            return
        one, item, y = self._pending
        self._pending = None
        if y.requires_grad:
            y.register_hook(lambda grad: _note(one, item, grad))

    def _met(self, item: Product) -> Met:
        key = item.name, int(item.weight.storage_offset())
        one = self._seen.met.get(key)
        if one is None:
            channelwise = item.settings is not None and item.matrices.shape[2] > WIDEST
            one = self._seen.met[key] = Met(item, channelwise)
        if key not in self._counted:
            self._counted.add(key)
            one.examples += self._examples
        if item.groups == 1 or item.weight.shape[1] > 1:
            one.add(self._rows(item, one.channelwise))
        return one

    @torch.no_grad()
    def _rows(self, item: Product, channelwise: bool) -> Tensor:
        if channelwise:
            rows = item.data.detach().movedim(1, -1).flatten(0, -2)
            rows = rows[torch.randperm(len(rows), generator=self._generator)[: POSITIONS // 8]]
            return rows.reshape(len(rows), item.groups, -1).movedim(1, 0)
        chosen = real_positions(item, self._mask, self._examples)
        count = item.positions if chosen is None else len(chosen)
        if count > POSITIONS // 8:
            picked = torch.randperm(count, generator=self._generator)[: POSITIONS // 8]
            chosen = picked if chosen is None else chosen[picked]
        return item.phi(chosen).detach()


def _others(packet: Any, args: Sequence[Any]) -> Sequence[Any]:
    """What the products that are not followed multiply."""
    if packet is aten.convolution and args[6]:
        return args[1:2]
    return args[:2] if packet is aten.bmm else args[1:3] if packet is aten.baddbmm else ()


def _note(one: Met, item: Product, grad: Tensor) -> None:
    found = item.results(grad.detach(), None).square().sum(1, dtype=torch.float64).flatten()
    one.energy = found if one.energy is None else one.energy + found

"""Closed-form reconstruction: the kept weights that give the original's outputs from the inputs there are now."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Plan, UsageError
from penjing.recover._apart import Apart, too_little
from penjing.recover._footprint import fitting, footprint, positions_of_batch
from penjing.recover._lockstep import Walker
from penjing.recover._modules import device_of, place, write_tensors
from penjing.recover._modules import tensors_of as tensors_by_name
from penjing.recover._norms import Norms, address, norms_of
from penjing.recover._offsets import bias_of, less_added, offset_now, write
from penjing.recover._padding import Padding, padding_of
from penjing.recover._pairing import Pairing, alike, base_of, check_cut, paired, run_once, sharing, surveyed
from penjing.recover._protocols import Batch, Task
from penjing.recover._refit import Sums, missed, refit
from penjing.recover._refitted import Reconstruction, Refitted, notes_of
from penjing.recover._repeated import original_sums
from penjing.recover._stations import Fold, Forward, NormStation, ProductStation
from penjing.structure import (
    Meeting,
    Norm,
    Parameters,
    Product,
    Survey,
    buffers_kept,
    fast_paths_off,
    kept_outputs,
    kernels_written_out,
    surroundings_off,
    tensors_of,
)

POSITIONS = 20_000
MEMORY = 4 << 30
NEAR = 1e-3  # a weight that misses less of its outputs' variance is left as it is
FAINT = 1e-3  # of the largest slope of a batch norm: flatter ones cannot make up for what a stream lacks


@torch.no_grad()
def reconstruct(
    model: nn.Module,
    slim: nn.Module,
    plan: Plan,
    batches: Iterable[Batch],
    *,
    task: Task | None = None,
    positions: int = POSITIONS,
    memory: int = MEMORY,
    seed: int = 0,
) -> Reconstruction:
    """Refit `slim`'s weights in place so that they give `model`'s outputs; `plan` cut `slim` from `model`.

    In depth order, every weight that is multiplied with data (linear layers, convolutions, attention's projections)
    becomes the ridge regression of the original's outputs, at the outputs kept, on the inputs that the smaller network
    has by then. Where the product is added to a stream, it also makes up for what the stream lacks there (the target of
    He et al., "Channel Pruning", ICCV 2017, section 3.3). Means are compensated in the bias, or by the batch norm that
    follows: statistics of batch norms are re-estimated on the way. The ridge draws towards the given weights and is the
    one that serves every fourth batch (of fewer than four, every fourth example), held out, best; then all count. In
    the line of ThiNet (ICCV 2017), OBC (NeurIPS 2022), ZipLM (NeurIPS 2023).

    All batches walk through both networks together, once; padding does not count where the inputs hold a mask or `task`
    says which positions do. At most `positions` places per weight are drawn, and as many batches are taken as fit into
    `memory` bytes. Labels are not used. Weights that miss less than 0.1% of their outputs' variance stay as they are.
    Weights that a forward reads again and again (recurrent ones) are fitted to the original's inputs instead. What is
    left alone is listed too, with the cause: weights of more than 8,192 inputs, those that several operators read (save
    parts that lie apart, as attention's projections do), those that met too little to tell, those that meet data in
    other operators (transposed convolutions, lookups), and those that see rows chosen by the data, where the two
    networks choose unlike numbers.

    Raises `UsageError` for batches that are missing or hold NaN, `PlanError` for a plan of another network; then `slim`
    stays as it was.
    """
    begun = time.perf_counter()
    for name, number, usual in (("positions", positions, POSITIONS), ("memory", memory, MEMORY)):
        if number < 1:
            raise UsageError(
                f"{name}={number} leaves nothing to fit on: give at least 1, or leave it at {usual:,}"
            )
    if batches is None or isinstance(batches, Tensor):
        raise UsageError(
            f"batches is {type(batches).__name__}: give an iterable of batches, such as a loader or [inputs]"
        )
    given = [place(batch, device_of(slim)) for batch in batches]
    given = [batch for batch in given if _examples(batch)]
    if not given:
        raise UsageError(
            "reconstruct got no batches: pass at least one with examples (a generator may be used up)"
        )
    with surroundings_off(), buffers_kept(model), _whole_or_not(slim):
        job = _Job.of(model, slim, plan, given, task, positions, memory, seed)
        layers = job.run()
    return Reconstruction(
        layers=layers,
        notes=(*job.notes, *notes_of(layers)),
        examples=job.apart.total,
        memory=job.memory,
        seconds=time.perf_counter() - begun,
    )


@contextmanager
def _whole_or_not(slim: nn.Module) -> Iterator[None]:
    """An error or interrupt on the way leaves the tensors as they were."""
    before = {name: tensor.clone() for name, tensor in tensors_by_name(slim).items()}
    try:
        yield
    except BaseException:
        write_tensors(slim, before)
        raise


@dataclass(slots=True)
class _Job:
    model: nn.Module
    slim: nn.Module
    removed: Mapping[str, Mapping[int, tuple[int, ...]]]
    inputs: list[Any]
    padding: list[Padding]
    own: Parameters
    whole: Parameters
    surveys: tuple[Survey, Survey]
    pairing: Pairing
    norms: Norms
    positions: int
    memory: int
    apart: Apart
    generator: torch.Generator
    notes: list[str] = field(default_factory=list)
    folds: dict[int, Fold] = field(default_factory=dict)

    @staticmethod
    def of(
        model: nn.Module,
        slim: nn.Module,
        plan: Plan,
        batches: list[Batch],
        task: Task | None,
        positions: int,
        memory: int,
        seed: int,
    ) -> "_Job":
        base = base_of(model, plan)
        inputs = [_first(b) if task is None else task.inputs(b) for b in batches]
        own, whole = Parameters(slim), Parameters(base)
        check_cut(own, whole, plan)
        slim, base = sharing(slim), sharing(base)
        alike(slim, base)
        with fast_paths_off():
            surveys = surveyed((slim, base), (own, whole), inputs[0])
        modules = sum(1 for network in (slim, base) for _ in network.modules())
        fit = fitting(surveys, len(inputs), positions, modules, memory)
        notes = []
        if fit < len(inputs):
            notes.append(
                f"{fit} of {len(inputs)} calibration batches fit into {memory / 1e6:.0f} MB and were used"
            )
        padding = [padding_of(task, b, x, base) for b, x in zip(batches[:fit], inputs, strict=False)]
        examples = sum(p.examples for p in padding)
        norms = norms_of(surveys[0], slim, examples / max(1, padding[0].examples))
        pairing = paired(surveys, own, plan)
        return _Job(
            model=base,
            slim=slim,
            removed=plan.removed,
            inputs=inputs[:fit],
            padding=padding,
            own=own,
            whole=whole,
            surveys=surveys,
            pairing=replace(
                pairing, once=norms.settled(pairing.once), repeated=norms.settled(pairing.repeated)
            ),
            norms=norms,
            positions=positions,
            memory=footprint(surveys, fit, positions, modules),
            apart=Apart.of([p.examples for p in padding]),
            generator=torch.Generator().manual_seed(seed),
            notes=[*notes, *norms.notes],
        )

    def run(self) -> tuple[Refitted, ...]:
        found: list[Refitted] = []
        with ExitStack() as stack:
            stack.enter_context(fast_paths_off())
            if self.surveys[0].fused:
                stack.enter_context(kernels_written_out())
            found += self._refit_repeated()
            small = [self._walker(stack, self.slim, x, 0) for x in self.inputs]
            large = [self._walker(stack, self.model, x, 1) for x in self.inputs]
            while True:
                stations = [walker.advance() for walker in small]
                met = isinstance(stations[0], ProductStation)
                others = [walker.advance() for walker in large] if met else []
                if len({s and s.name for s in (*stations, *others)}) > 1:
                    after = found[-1].name if found else "the input"
                    self.notes.append(f"batches, or the two networks, take different ways after {after}")
                    break
                if stations[0] is None:
                    break
                if isinstance(stations[0], NormStation):
                    self._settle(stations)
                else:
                    found.append(self._refit(stations, others))
                del stations, others
        return (*found, *self._left({f.name for f in found}))

    def _left(self, found: Collection[str]) -> Iterable[Refitted]:
        """What is left alone, with the cause."""
        apart = "what is met before it depends on the data"
        yield from (Refitted(name=n, cause=apart) for n in self.pairing.once if n not in found)
        yield from (Refitted(name=n, cause=c) for n, c in self.pairing.left.items())

    def _settle(self, stations: Sequence[NormStation]) -> None:
        stations[0].estimate(stations)
        fold = self.folds.pop(address(stations[0].norm), None)
        if fold is not None:
            fold.into(stations[0].norm)

    def _walker(self, stack: ExitStack, model: nn.Module, inputs: Any, side: int) -> Walker:
        forward = Forward(
            (self.own, self.whole)[side],
            self.surveys[side],
            self.pairing.once,
            self.norms.fresh,
            after=bool(side),
        )
        walker = Walker(partial(run_once, sharing(model), inputs), forward.watch)
        stack.callback(walker.cancel)
        return walker

    def _refit(self, stations: Sequence[ProductStation], others: Sequence[ProductStation]) -> Refitted:
        first, name = stations[0].product, stations[0].name
        learned, held = Sums(), Sums()
        if any(s.product.positions != o.product.positions for s, o in zip(stations, others, strict=True)):
            return Refitted(name=name, cause="the two networks meet it at different numbers of positions")
        meeting = self.pairing.once[name]
        kept = self._kept(others[0].product)
        joined, fold = meeting.partner is not None, None
        joined = joined and all(s.partner is not None for s in (*stations, *others))
        if joined and meeting.norm is not None:
            fold = self._fold(name, meeting.norm, kept)
            joined = fold is not None
        looked: dict[int, tuple[Tensor | None, Tensor, Tensor]] = {}
        worst = 0.0
        for number in sorted({0, len(stations) // 2, len(stations) - 1}):
            pair = self._pair(number, stations[number], others[number], kept, fold, joined=joined)
            looked[number] = pair
            miss = self._missed(meeting, first, *pair[1:])
            if not miss <= NEAR:  # nor where it is NaN
                break
            worst = max(worst, miss)
        else:
            if _finite(others):
                return _near(meeting, worst)
        for number, (station, other) in enumerate(zip(stations, others, strict=True)):
            pair = looked.pop(number, None) or self._pair(number, station, other, kept, fold, joined=joined)
            self.apart.add(number, station.product, *pair, (learned, held))
        return self._solved(meeting, first, learned, held, fold)

    def _pair(
        self,
        number: int,
        station: ProductStation,
        other: ProductStation,
        kept: Tensor | None,
        fold: Fold | None,
        *,
        joined: bool,
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """What one batch gives to the regression: its positions, its inputs now there, and the outputs wanted."""
        assert other.result is not None
        item = station.product
        chosen = self._chosen(item, self.padding[number])
        phi, y = item.phi(chosen), item.results(other.result, chosen, kept)
        y = less_added(y, self._bias(self.pairing.once[station.name], item), item, chosen)
        if joined:
            assert other.partner is not None
            assert station.partner is not None
            lacking = item.results(other.partner, chosen, kept) - item.results(station.partner, chosen)
            y = y + (lacking if fold is None else lacking / fold.slope.view(y.shape[0], 1, -1))
        return chosen, _precise(phi), _precise(y)

    def _kept(self, whole: Product) -> Tensor | None:
        return kept_outputs(whole, self.removed.get(whole.name, {}), self.whole.tensors[whole.name])

    def _missed(self, meeting: Meeting, item: Product, phi: Tensor, y: Tensor) -> float:
        bias = self._bias(meeting, item)
        offset = meeting.norm is not None or bias is not None
        return missed(item.matrices, phi, y, offset=offset, bias=offset_now(bias, item))

    def _solved(
        self, meeting: Meeting, item: Product, learned: Sums, held: Sums, fold: Fold | None = None
    ) -> Refitted:
        if not (learned.finite() and held.finite()):
            raise UsageError(f"{meeting.key!r} gives NaN or infinity on the calibration data: check both")
        learned, held = (learned, held) if learned.count else (held, learned)
        count = learned.count + held.count
        cause = too_little(self.apart.total, count) if count else "no calibration batch reaches it"
        if cause:
            return Refitted(name=meeting.key, positions=count, cause=cause)
        bias = self._bias(meeting, item)
        offset = meeting.norm is not None or bias is not None
        found = refit(
            item.matrices, learned, held, offset=offset, bias=offset_now(bias, item), slack=self.apart.slack
        )
        if found.before <= NEAR:
            return _near(meeting, found.before, found.count)
        write(item, bias, found)
        if fold is not None and meeting.norm is not None:
            origin = fold.origin if bias is not None else fold.origin - found.offset.flatten()
            self.folds[address(meeting.norm)] = replace(fold, origin=origin.to(fold.slope.dtype))
        return Refitted(
            name=meeting.key,
            before=found.before,
            after=found.after,
            ridge=found.ridge,
            positions=found.count,
            inputs=item.matrices.shape[2],
        )

    def _refit_repeated(self) -> list[Refitted]:
        if not self.pairing.repeated:
            return []
        rounds = self.apart.rounds()
        sums = original_sums(
            [partial(run_once, self.model, self.inputs[number]) for number, _ in rounds],
            self.whole,
            self.pairing.repeated,
            self.removed,
            lambda at: rounds[at][1],
            lambda at, item: self.apart.positions(
                *rounds[at], item, self._chosen(item, self.padding[rounds[at][0]])
            ),
            {n for n, m in self.pairing.repeated.items() if self._bias(m, m.product) is not None},
        )
        return [self._solved(m, m.product, *sums[name]) for name, m in self.pairing.repeated.items()]

    def _fold(self, name: str, norm: Norm, kept: Tensor | None) -> Fold | None:
        """What the original's batch norm does to the outputs kept; None where it hides some of them."""
        whole = self.surveys[1].once[name].norm
        if whole is None or norm.weight is None or norm.bias is None:
            return None
        uses = self.surveys[0].uses
        if any(uses.get(self.own.name(t) or "") != 1 for t in (norm.weight, norm.bias)):
            return None
        mean, var = (t if kept is None else t[kept] for t in (whole.mean, whole.var))
        slope = norm.weight / (var + whole.eps).sqrt()
        return Fold(slope, mean) if slope.abs().min() > FAINT * slope.abs().max() else None

    def _bias(self, meeting: Meeting, item: Product) -> Tensor | None:
        return bias_of(meeting, item, self.surveys[0], self.own.tensors)

    def _chosen(self, item: Product, padding: Padding) -> Tensor | None:
        """The positions that count, or as many of them as are enough; None for all."""
        chosen = padding.positions(item)
        count = item.positions if chosen is None else len(chosen)
        most = positions_of_batch(item.matrices.shape[2], len(self.inputs), self.positions)
        if count <= most:
            return chosen
        picked = torch.randperm(count, generator=self.generator)[:most].sort()[0].to(item.data.device)
        return picked if chosen is None else chosen[picked]


def _finite(stations: Sequence[ProductStation]) -> bool:
    return all(bool(torch.isfinite(s.result.sum())) for s in stations if s.result is not None)


def _near(meeting: Meeting, miss: float, positions: int = 0) -> Refitted:
    inputs = meeting.product.matrices.shape[2]
    return Refitted(name=meeting.key, before=miss, after=miss, positions=positions, inputs=inputs)


def _precise(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype is torch.float64 else tensor.float()


def _examples(batch: Batch) -> int:
    """Dim 0 of its first tensor; 1 where it shows none."""
    return next((tensor.shape[0] for tensor in tensors_of(batch) if tensor.dim()), 1)


def _first(batch: Batch) -> Any:
    return batch[0] if isinstance(batch, tuple | list) else batch

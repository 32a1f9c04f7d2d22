"""A slim network of transformers as a folder for from_pretrained, where one configuration describes it."""

import copy
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import cut
from penjing.sources._hf_config import make, plain, quiet
from penjing.sources._hf_networks import without_pooler

TOLERANCE = 1e-6  # float32, the same operations in the same order
MOST_BUILDS, MOST_TRIES = 250, 24
PARTS = "parametrizations"
TRAINING_ONLY = ("masked_spec_embed", "mask_token")
Values = dict[str, Any]
Change = tuple[str, int | None, int]  # key, place in its list, new value


def save_uniform(
    folder: str | os.PathLike[str], original: nn.Module, slim: nn.Module, example: Any
) -> str | None:
    """Write `slim` so that transformers' from_pretrained opens it from `folder`; None, or the reason why not.

    `original` is the network it was cut from. It counts as written only when the folder, opened again, gives the same
    outputs on `example` (what the network is called with). Of an encoder with a head of ours the encoder is written.
    """
    whole, target = _inner(original), _inner(slim)
    if whole is None or target is None or type(whole) is not type(target):
        return "the network is not one of transformers"
    target = copy.deepcopy(target).cpu()
    if tensors(whole).keys() != tensors(target).keys():
        return "parts of the network were dropped or replaced, which its configuration cannot say"
    place = Path(folder)
    if place.exists() and not (
        place.is_dir() and (not any(place.iterdir()) or (place / "config.json").is_file())
    ):
        return f"{place} is there already and holds something else"
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as aside:
        made = Path(aside) / "whole"
        reason = _written(made, whole, target, _Fit(whole, target), _own_inputs(slim, example))
        if reason is None:
            shutil.rmtree(place, ignore_errors=True)
            made.rename(place)
    return reason


class _Fit:
    """Which configurations give a network of the slim one's shapes."""

    def __init__(self, whole: Any, target: Any) -> None:
        self.maker = type(whole)
        self.wanted = {name: tensor.shape for name, tensor in tensors(target).items()}
        self.before = {name: tensor.shape for name, tensor in tensors(whole).items()}
        self.resized = _resized(self.before, self.wanted)
        self.counted = _recounted(whole, target)
        self.values = plain(whole.config)
        self.builds = 0

    def misfits(self, values: Values) -> list[str]:
        """Names of tensors that `values` give another shape; a name of its own where they give no network."""
        self.builds += 1
        try:
            with torch.device("meta"):
                shapes = {name: t.shape for name, t in tensors(blank(self.maker, values)).items()}
        except Exception:  # sizes that contradict each other
            return ["", *self.wanted]
        if shapes.keys() != self.wanted.keys():
            return ["", *self.wanted]
        return [name for name, shape in self.wanted.items() if shapes[name] != shape and not self._idle(name)]

    def nearest(self) -> tuple[tuple[Change, ...], list[str]]:
        """The changes after which most fits, taken one or two at a time, and what still does not fit."""
        done: tuple[Change, ...] = ()
        left = self.misfits(self.values)
        for _ in range(len(self.resized) + 1):
            found = (self._step(done, size, left) for size in (1, 2)) if left else iter(())
            step = next((step for step in found if step is not None), None)
            if step is None:
                break
            done, left = step
        return done, left

    def _step(
        self, done: tuple[Change, ...], size: int, left: list[str]
    ) -> tuple[tuple[Change, ...], list[str]] | None:
        """The best of `size` further changes; None where none is better than nothing."""
        best = None
        for tried, misfits in self._tried(done, size):
            if len(misfits) < len(best[1] if best else left):
                best = (tried, misfits)
            if not misfits:
                break
        return best

    def alike(self, done: tuple[Change, ...]) -> Iterator[Values]:
        """What fits: after `done`; with counts like the slim network's modules; with a change of `done` exchanged."""
        self.builds = 0
        seen: list[Values] = []
        for values in itertools.chain(
            (_changed(self.values, done),), self._recounts(done), self._exchanges(done)
        ):
            if values not in seen:
                seen.append(values)
                yield values

    def _recounts(self, done: tuple[Change, ...]) -> Iterator[Values]:
        counts = tuple(_changes(_changed(self.values, done), self.counted))
        for chosen in itertools.chain.from_iterable(itertools.combinations(counts, size) for size in (1, 2)):
            tried = _changed(self.values, (*done, *chosen))
            if self.builds <= MOST_BUILDS and not self.misfits(tried):
                yield tried

    def _exchanges(self, done: tuple[Change, ...]) -> Iterator[Values]:
        for kept in itertools.combinations(done, max(0, len(done) - 1)):
            for tried, misfits in itertools.chain(self._tried(kept, 1), self._tried(kept, 2)):
                if not misfits:
                    yield _changed(self.values, tried)

    def _tried(self, done: tuple[Change, ...], size: int) -> Iterator[tuple[tuple[Change, ...], list[str]]]:
        changes = tuple(_changes(_changed(self.values, done), self.resized))
        for chosen in itertools.combinations(changes, size):
            if self.builds > MOST_BUILDS:
                return
            yield (*done, *chosen), self.misfits(_changed(self.values, (*done, *chosen)))

    def _idle(self, name: str) -> bool:
        """Whether only training reads this tensor, so that nothing said how to cut it."""
        return name.rpartition(".")[2] in TRAINING_ONLY and self.wanted[name] == self.before[name]


def blank(maker: Any, values: Mapping[str, Any]) -> Any:
    """A network of the class `maker` with the configuration `values`."""
    config = make(values, "the slim network")
    with quiet():
        return maker._from_config(config, dtype=torch.float32, **without_pooler(maker))


def _written(made: Path, whole: Any, target: Any, fit: _Fit, inputs: Mapping[str, Any] | None) -> str | None:
    if inputs is None:
        return "the example inputs are not keyword arguments of its encoder"
    done, left = fit.nearest()
    if left:
        name = next(name for name in left if name)
        return (
            f"no configuration of type {whole.config.model_type} gives {name} its size {_size(fit.wanted[name])} "
            f"(before: {_size(fit.before[name])}): layers differ among themselves, or from what the type can say"
        )
    expected = _outputs(target, inputs)
    worst, failed = float("inf"), ""
    for tried in itertools.islice(fit.alike(done), MOST_TRIES):
        try:
            worst = min(worst, _difference(expected, _outputs(_reopened(made, tried, target), inputs)))
        except Exception as error:  # sizes that fit one by one, and not together
            failed = f"{type(error).__name__}: {cut(str(error), 200)}"
        if worst <= TOLERANCE:
            return None
    if worst == float("inf"):
        return f"what gives every tensor its size cannot be run: {failed or 'it answers in another shape'}"
    return (
        f"one configuration gives every tensor its size, but then the outputs differ by {worst:.1e}: a constant that "
        "follows from the sizes is another one there"
    )


def _reopened(made: Path, values: Values, target: Any) -> Any:
    """What transformers opens from the folder that was written with `values` and the target's tensors."""
    maker = type(target)
    model = blank(maker, values)
    _put(model, tensors(target))
    with quiet():
        model.save_pretrained(made)
        again = maker.from_pretrained(made, dtype=torch.float32, **without_pooler(maker))
    return again.eval()


@torch.no_grad()
def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; what is computed from others (weight norm) as its value."""
    found = {k: v for k, v in model.state_dict().items() if f".{PARTS}." not in f".{k}"}
    for path, module in model.named_modules():
        for name in getattr(module, PARTS, ()):
            found[f"{path}.{name}" if path else name] = getattr(module, name)
    return found


@torch.no_grad()
def _put(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give `model` these values, those that it computes from others included."""
    own = dict(model.state_dict())
    for name, value in values.items():
        path, _, leaf = name.rpartition(".")
        if name in own:
            if own[name].shape == value.shape:  # else an idle one
                own[name].copy_(value)
        else:
            setattr(model.get_submodule(path), leaf, value.detach().cpu().clone())


def _inner(model: nn.Module) -> Any:
    """The network of transformers: `model` itself, or the encoder before a head of ours."""
    for found in (model, getattr(model, "encoder", None)):
        if hasattr(found, "save_pretrained") and hasattr(found, "config"):
            return found
    return None


def _own_inputs(slim: nn.Module, example: Any) -> Mapping[str, Any] | None:
    """The example as keyword arguments of the network of transformers; None where that is not known."""
    inner = _inner(slim)
    name = getattr(inner, "main_input_name", "input_ids")
    if isinstance(example, Tensor):
        return {name: example}
    if isinstance(example, tuple | list) and len(example) == 1 and isinstance(example[0], Tensor):
        return {name: example[0]}
    return dict(example) if isinstance(example, Mapping) else None


@torch.no_grad()
def _outputs(model: Any, inputs: Mapping[str, Any]) -> list[Tensor]:
    """Every floating tensor at the top of the outputs, on the CPU."""
    moved = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in inputs.items()}
    outputs = model.eval()(**moved)
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def _difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """The largest difference, relative to the largest value where that is above 1."""
    if [t.shape for t in expected] != [t.shape for t in found]:
        return float("inf")
    return max(
        (
            float((a - b).abs().max()) / max(1.0, float(a.abs().max()))
            for a, b in zip(expected, found, strict=True)
        ),
        default=float("inf"),
    )


def _resized(
    before: Mapping[str, torch.Size], after: Mapping[str, torch.Size]
) -> tuple[tuple[int, int], ...]:
    """Sizes before and after, each pair once."""
    return tuple(
        dict.fromkeys(
            (old, new)
            for name in before
            for old, new in zip(before[name], after[name], strict=False)
            if old != new
        )
    )


def _recounted(whole: nn.Module, target: nn.Module) -> tuple[tuple[int, int], ...]:
    """Whole numbers that modules keep, before and after, where they changed."""
    found: dict[tuple[int, int], None] = {}
    for one, other in zip(whole.modules(), target.modules(), strict=False):
        for key, old in vars(one).items():
            new = vars(other).get(key)
            if type(old) is int and type(new) is int and old != new:
                found[old, new] = None
    return tuple(found)


def _changes(values: Values, pairs: tuple[tuple[int, int], ...]) -> Iterator[Change]:
    """New values of whole numbers in a configuration which a pair of sizes suggests: in its proportion."""
    seen: set[Change] = set()
    for key, value in values.items():
        places = enumerate(value) if isinstance(value, list) else ((None, value),)
        for place, number in places:
            if type(number) is not int or number < 1:
                continue
            for old, new in pairs:
                scaled, rest = divmod(number * new, old)
                fits = rest == 0 and scaled >= 1 and (old % number == 0 or number % old == 0)
                change = (key, place, scaled)
                if fits and scaled != number and change not in seen:
                    seen.add(change)
                    yield change


def _changed(values: Values, changes: tuple[Change, ...]) -> Values:
    found = copy.deepcopy(values)
    for key, place, number in changes:
        if place is None:
            found[key] = number
        else:
            found[key][place] = number
    return found


def _size(shape: torch.Size) -> str:
    return " x ".join(map(str, shape)) or "1"

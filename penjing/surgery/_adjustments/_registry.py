"""Adjustments: modules that become others, by kind; one registry, which replays and reads plans know by name."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from penjing.core import PlanError
from penjing.core._edits import AdjustComponent, OptionValue
from penjing.structure import drop_caches, every_path, named_buffers, named_parameters

Options = Mapping[str, OptionValue]
LARGEST, LONGEST = (
    65_536,
    4096,
)  # of a number in the options of an edit: alone, and in a tuple (kernels, strides)
CELLS = 2**24  # of new weights, or four times those that the modules have
Change = Callable[[Sequence[nn.Module], Options], Sequence[nn.Module]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """What stands in the places of the modules: `change(modules, options)`, one for each; the same object where one
    stays as it is. Weights are a function of the modules' own; on the meta device only shapes are.

    `exact` says whether the network computes the same with these options, `tell` what was done, in a few words.
    """

    kind: str
    change: Change
    exact: Callable[[Options], bool]
    tell: Callable[[Options], str]


ADJUSTMENTS: dict[str, Adjustment] = {}


def adjustment(
    kind: str, *, tell: Callable[[Options], str], exact: bool | Callable[[Options], bool] = False
) -> Callable[[Change], Change]:
    """Registers `change` under its kind; raises `ValueError` for a kind that is taken."""

    def register(change: Change) -> Change:
        if kind in ADJUSTMENTS:
            raise ValueError(f"two adjustments are called {kind!r}")
        said = exact if callable(exact) else (lambda _: bool(exact))
        ADJUSTMENTS[kind] = Adjustment(kind=kind, change=change, exact=said, tell=tell)
        return change

    return register


def find_adjustment(kind: str) -> Adjustment:
    """Raises `PlanError` for a kind that is not known."""
    if kind not in ADJUSTMENTS:
        raise PlanError(f"the plan asks for adjustment {kind!r}; known: {', '.join(sorted(ADJUSTMENTS))}")
    return ADJUSTMENTS[kind]


def keeps_function(edit: AdjustComponent) -> bool:
    """Whether the network computes the same after the edit, up to rounding."""
    return find_adjustment(edit.kind).exact(dict(edit.options))


def told(edit: AdjustComponent) -> str:
    """The edit as a plain sentence without its full stop.

    >>> told(AdjustComponent(kind="activation", modules=("features.1",), options=(("to", "relu"),)))
    'features.1: its activation became relu'
    """
    places = edit.modules[0] if len(edit.modules) == 1 else f"{edit.modules[0]} to {edit.modules[-1]}"
    tell = find_adjustment(edit.kind).tell
    try:
        return f"{places}: {tell(dict(edit.options))}"
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise PlanError(f"{places}: the options of {edit.kind!r} lack or misstate {error}") from error


def change(model: nn.Module, edit: AdjustComponent) -> None:
    """Change the network in place. Raises `PlanError` where it is not what the edit speaks of."""
    found = [_module(model, path) for path in edit.modules]
    before = _first_dims(model)
    told(edit)
    try:
        made = find_adjustment(edit.kind).change(found, _bounded(edit.options))
        if len(made) != len(found):
            raise ValueError(f"it is of {len(made)} modules, and {len(found)} are named")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        kinds = ", ".join(type(module).__name__ for module in found)
        raise PlanError(
            f"{' and '.join(edit.modules)} ({kinds}) cannot be adjusted as {edit.kind!r} asks: "
            f"{type(error).__name__}: {error}"
        ) from error
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    for old, new in zip(found, made, strict=True):
        if new is not old:
            if like is not None and not any(True for _ in old.parameters()):
                new.to(device=like.device, dtype=like.dtype)
            new.train(old.training)
            _stand_in(model, old, new)
    gone = before.keys() - _first_dims(model).keys()
    odd = gone ^ {name for name, size in edit.tensors if before.get(name) == size}
    if odd or len(gone) != len(edit.tensors):
        raise PlanError(
            f"the plan lists other tensors than those that vanish by {edit.kind!r} on {edit.modules[0]!r}: "
            f"{sorted(odd)[:3]}"
        )
    drop_caches(model.modules())


def _bounded(options: Sequence[tuple[str, OptionValue]]) -> dict[str, OptionValue]:
    """The options by name; raises `ValueError` for numbers that no network has: plans may come from anybody."""
    for name, value in options:
        numbers = value if isinstance(value, tuple) else (value,)
        most = LONGEST if isinstance(value, tuple) else LARGEST
        if any(isinstance(one, (int, float)) and not -most <= one <= most for one in numbers):
            raise ValueError(f"{name} is beyond {most}")
    return dict(options)


def affordable(modules: Sequence[nn.Module], *sizes: int) -> None:
    """Raises `ValueError` where new weights of these sizes are none, or far more than the modules have."""
    own = sum(parameter.numel() for module in modules for parameter in module.parameters())
    if min(sizes) < 1 or math.prod(sizes) > max(CELLS, 4 * own):
        raise ValueError(f"{' x '.join(map(str, sizes))} new weights are out of proportion to {own}")


def _first_dims(model: nn.Module) -> dict[str, int]:
    """The first dim of every parameter and buffer, under all its names."""
    named = every_path(model)
    both = (*named_parameters(named), *named_buffers(named))
    return {name: tensor.shape[0] if tensor.dim() else 1 for name, tensor in both}


def _stand_in(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """`new` wherever the network holds `old`."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        found = model.get_submodule(path)
    except AttributeError as error:
        raise PlanError(f"the plan names module {path!r}, which this {type(model).__name__} lacks") from error
    if not path:
        raise PlanError("the plan adjusts the network as a whole, and only modules in it can be")
    return found


def number(options: Options, name: str) -> int:
    """An option that is a whole number; raises `ValueError` otherwise."""
    value: Any = options[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}={value!r} is no whole number")
    return value


def text(options: Options, name: str) -> str:
    """An option that is text; raises `ValueError` otherwise."""
    value = options[name]
    if not isinstance(value, str):
        raise ValueError(f"{name}={value!r} is no text")
    return value


def pair(options: Options, name: str) -> tuple[int, ...]:
    """An option that is a tuple of whole numbers; raises `ValueError` otherwise."""
    value = options[name]
    if not isinstance(value, tuple):
        raise ValueError(f"{name}={value!r} is no tuple")
    return value

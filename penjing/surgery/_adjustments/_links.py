"""How components are connected: spans dropped or bridged, branches dropped, shortcuts added."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core._edits import AdjustComponent
from penjing.core._graph import ModuleCall
from penjing.structure import NORM
from penjing.surgery._adjustments._propose import Misfit, Site, proposer
from penjing.surgery._adjustments._registry import Options, adjustment, affordable, number, pair, text
from penjing.surgery._adjustments._tensors import convolution, linear

DROP, BRIDGE, BRANCH, SHORTCUT = "drop", "bridge", "branch", "shortcut"
aten = torch.ops.aten


class Carried(nn.Module):
    """What a dropped module of several arguments or results gives: the first tensor that it is given, where it gave its
    only one.
    """

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return formed(first_tensor(args), self.form)


def first_tensor(args: Sequence[Any]) -> Tensor:
    return next(arg for arg in args if isinstance(arg, Tensor))


def formed(x: Tensor, form: str) -> Any:
    """`x` in the place of the tensor of a form as traced: "t", "(t)", "(tn)"."""
    if form == "t":
        return x
    return tuple(x if item == "t" else None for item in form[1:-1])


class Nothing(nn.Module):
    """What a dropped branch adds: zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


class Shortcut(nn.Module):
    """A module whose input is added to what it gives."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        """What the network's code asks of the module, the module answers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


@adjustment(DROP, tell=lambda _: "dropped")
def drop(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """What went in goes on."""
    form = options.get("form")
    return tuple(nn.Identity() if form is None else Carried(text(options, "form")) for _ in modules)


@adjustment(
    BRIDGE, tell=lambda o: f"dropped, bridged by a {'1x1 convolution' if 'stride' in o else 'linear map'}"
)
def bridge(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """One linear map of channels or features in the place of everything, which starts as the identity."""
    like = next(
        (p for m in modules for p in m.parameters() if p.is_floating_point()), nn.Parameter(torch.empty(0))
    )
    affordable(modules, number(options, "out"), number(options, "in"))
    straight = torch.eye(
        number(options, "out"), number(options, "in"), dtype=torch.float64, device=like.device
    )
    shift = straight.new_zeros(len(straight))
    if "stride" in options:
        stride = pair(options, "stride")
        ones = [1] * len(stride)
        made = convolution(
            straight.view(*straight.shape, *ones),
            shift,
            like,
            stride=stride,
            padding=[0] * len(ones),
            dilation=ones,
        )
    else:
        made = linear(straight, shift, like)
    return nn.Sequential(OrderedDict(bridge=made)), *(nn.Identity() for _ in modules[1:])


@adjustment(BRANCH, tell=lambda _: "the branch was dropped")
def drop_branch(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """Its place in the sum is zero, and what was computed for it alone is not."""
    return tuple(Nothing() for _ in modules)


@adjustment(SHORTCUT, tell=lambda _: "a shortcut was added around it")
def add_shortcut(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """x + f(x) for f(x)."""
    return tuple(Shortcut(module) for module in modules)


@proposer
def _spans(site: Site) -> Iterator[AdjustComponent | Misfit]:
    for call in once(site):
        norm = call.path in site.parts.found and site.parts.found[call.path].kind == NORM
        if norm or not _holds_weights(site, call):
            continue
        if not call.plain:
            if _carries(site, call):
                yield site.edit(DROP, call.path, form=call.form)
            continue
        source, target = (site.shape(value) for value in (call.inputs[0], call.outputs[0]))
        same = source == target
        added = _added(site, call)
        if same and added is None:
            yield site.edit(DROP, call.path)
            yield site.edit(SHORTCUT, call.path)
        elif added is None:
            yield Misfit(
                kind=DROP, module=call.path, why=f"it turns {list(source[1:])} into {list(target[1:])}"
            )
        options = _bridge_options(source, target)
        if options is None:
            yield Misfit(
                kind=BRIDGE, module=call.path, why=f"no linear map of features takes {source} to {target}"
            )
        elif call.last_op - call.first_op > 2:
            yield site.edit(BRIDGE, call.path, **options)
        if added is not None:
            yield site.edit(BRANCH, *_for_it_alone(site, call), call.path)


def once(site: Site) -> list[ModuleCall]:
    """Calls of modules in the network that run once."""
    runs: dict[str, list[ModuleCall]] = {}
    for call in site.parts.graph.modules:
        runs.setdefault(call.path, []).append(call)
    return [calls[0] for path, calls in runs.items() if path and len(calls) == 1]


def _holds_weights(site: Site, call: ModuleCall) -> bool:
    return any(name.startswith(f"{call.path}.") for state in site.structure.states for name in state.names)


def _carries(site: Site, call: ModuleCall) -> bool:
    """Whether a module gives one tensor, alone or with None beside it, that is like the first of those it is given."""
    if not call.inputs or len(call.outputs) != 1 or call.form.strip("()").replace("n", "") != "t":
        return False
    source, target = (site.parts.graph.values[value] for value in (call.inputs[0], call.outputs[0]))
    same = source.shape == target.shape and source.dtype == target.dtype
    return same and source.id != target.id and call.form.count("(") <= 1


def _for_it_alone(site: Site, call: ModuleCall) -> tuple[str, ...]:
    """The modules before it whose results nothing else reads, the first one first."""
    value, found = call.inputs[0], list[str]()
    while True:
        read, last = site.parts.readers.get(value, ()), call
        inside = site.parts.graph.calls[last.first_op : last.last_op]
        if value in site.parts.graph.outputs or any(one not in inside for one in read):
            return tuple(found)
        makers = [c for c in once(site) if c.plain and c.outputs[0] == value and c.inputs[0] != value]
        makers = [c for c in makers if not call.path.startswith(f"{c.path}.")]
        if not makers:
            return tuple(found)
        call = min(makers, key=lambda c: c.path.count("."))
        found.insert(0, call.path)
        value = call.inputs[0]


def _added(site: Site, call: ModuleCall) -> int | None:
    """The sum in which alone what a module gives is read, as its value; None where it is read otherwise."""
    read = site.parts.readers.get(call.outputs[0], ())
    if len(read) != 1 or call.outputs[0] in site.parts.graph.outputs:
        return None
    adds = read[0].op.overloadpacket in (aten.add, aten.add_) and len(read[0].inputs) == 2
    in_place = adds and read[0].op.overloadpacket is aten.add_ and read[0].inputs[0] == call.outputs[0]
    return read[0].outputs[0] if adds and not in_place else None


def _bridge_options(source: tuple[int, ...], target: tuple[int, ...]) -> dict[str, Any] | None:
    """Channels of a picture lie in dim 1, features of everything else in the last."""
    if len(source) != len(target) or len(source) < 2 or source[0] != target[0]:
        return None
    if len(source) == 4:
        steps = [a // b if b and a % b == 0 else 0 for a, b in zip(source[2:], target[2:], strict=True)]
        return {"in": source[1], "out": target[1], "stride": tuple(steps)} if all(steps) else None
    return {"in": source[-1], "out": target[-1]} if source[1:-1] == target[1:-1] else None

"""What timm and torchvision have in common here: a network by name, its weights, its inputs."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from penjing.core import Reads, SourceError, cut, nearest
from penjing.sources._limits import refuse_sizes

JSON = Any
FORBIDDEN = frozenset(
    ("pretrained", "weights", "weights_backbone", "checkpoint_path", "cache_dir", "progress")
    + ("pretrained_cfg", "pretrained_cfg_overlay")
)


class Registry(Protocol):
    """A package that builds networks by name. `args` are its builder's own keyword arguments."""

    def check(self, name: str) -> None:
        """Raise SourceError with the nearest names unless `name` is a classification network here."""
        ...

    def build(self, name: str, args: Mapping[str, JSON], *, initialize: bool) -> nn.Module:
        """The network without pretrained weights; `initialize=False` may leave the values unspecified."""
        ...

    def pretrained_args(self, name: str) -> Mapping[str, JSON]:
        """Arguments without which the pretrained weights would not fit or would mean something else."""
        ...

    def pretrained(
        self, name: str, args: Mapping[str, JSON], model: nn.Module
    ) -> tuple[Mapping[str, Tensor], str]:
        """Pretrained weights for `model`, the original heads included, and where they came from."""
        ...

    def reads(self, name: str, args: Mapping[str, JSON], model: nn.Module) -> Reads:
        """What the network expects of its inputs."""
        ...

    def family(self, name: str) -> str:
        """The name networks of one architecture share, as 'resnet'."""
        ...

    def relatives(self, name: str) -> tuple[str, ...]:
        """The names of all networks that the module behind `name` builds, itself among them."""
        ...

    def missing(self, name: str, ask: Callable[[str], str | None]) -> str:
        """Why its pretrained weights cannot be had, "" where they can; `ask` says why an address is out of reach."""
        ...


def checked_args(args: Mapping[str, JSON] | None) -> dict[str, JSON]:
    """`args` as a dict, refusing what would fetch or open something behind the caller's back, and hostile sizes."""
    refused = sorted(FORBIDDEN.intersection(args or ()))
    if refused:
        raise SourceError(
            f"Arguments {', '.join(refused)} may not be passed to a network's builder: weights are chosen by "
            "weights='pretrained', a file, or 'none'. Fix: leave them out of args"
        )
    refuse_sizes(args or {}, "args")
    return dict(args or {})


def unknown(package: str, name: str, known: Collection[str]) -> SourceError:
    near = nearest(name, known, n=4)
    said = f"Nearest names: {', '.join(near)}" if near else "No name is near it"
    return SourceError(
        f"{package} has no classification network {cut(name)!r} (it knows {len(known)}). {said}. Fix: choose "
        "one of its names"
    )


def unreachable(name: str, where: str, why: str, also: str = "") -> SourceError:
    return SourceError(
        f"Pretrained weights of {name} cannot be fetched from {where}: {why}.{also} "
        "Fix: give a file of weights (--weights FILE), start without weights (--weights none), or go online"
    )


def channel_values(values: Any, channels: int) -> tuple[float, ...]:
    """Per-channel statistics for `channels` channels: as given, or their mean where the number differs."""
    values = tuple(float(v) for v in values)
    return values if len(values) == channels else (sum(values) / len(values),) * channels

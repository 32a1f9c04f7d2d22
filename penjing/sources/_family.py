"""Ready-made relatives of a network: the other members of its family, nearest names first."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from penjing.core import SourceError
from penjing.sources._hf_config import is_type, make, plain
from penjing.sources._hf_files import absent, is_folder
from penjing.sources._hf_published import published
from penjing.sources._load import REGISTRIES, LoadedSource, build_source
from penjing.sources._registry import JSON
from penjing.sources._spec import SourceSpec, parse_source

LAYERS = "num_hidden_layers"
_WORDS = re.compile(r"[a-z]+|[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A network of a family. `layers` are the reference's layers that it consists of, () for one of its own."""

    source: str
    args: Mapping[str, JSON]
    layers: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.source}, layers {', '.join(map(str, self.layers))}" if self.layers else self.source


def no_family(spec: str) -> str:
    """Why the network that `spec` names has no ready-made relatives, "" where it may have some."""
    parsed = parse_source(spec)
    if parsed.kind in REGISTRIES or parsed.kind == "hf" or str(parsed) == "builtin:minilm":
        return ""
    return f"{spec} is a network by itself: no registry names smaller ones of its family"


def family_rings(loaded: LoadedSource) -> Iterator[tuple[Member, ...]]:
    """Members of the family of `loaded`, itself left out, in rings: those with the nearest names first.

    Families of a registry are what one module of its package builds; a ring more shares one word less at the start of
    the name (tf_efficientnet_lite0: tf_efficientnet_lite*, tf_efficientnet*, tf*, all), for names say what is alike
    better than classes do. Of networks of transformers the sizes that they were published in come first; then they
    themselves with fewer of their own layers, evenly spread (Sanh et al., "DistilBERT", 2019, section 3), which anybody
    can make where the configuration has a number of layers, and the network one list of so many; then all that was
    published of their type.
    """
    parsed = parse_source(loaded.source)
    if parsed.kind in REGISTRIES:
        yield from _named(parsed, loaded.args)
    elif not no_family(loaded.source):
        near, far = published(loaded.source, loaded.family)
        rings = (_on_hub(loaded, near), tuple(_thinner(loaded)), _on_hub(loaded, far))
        yield from (ring for ring in rings if ring)


def weights_missing(spec: str, ask: Callable[[str], str | None]) -> str:
    """Why no pretrained weights of a registry's or the hub's network can be had here and now, "" where they can.

    `ask` says of an address why it is out of reach, None where it is not.
    """
    parsed = parse_source(spec)
    if parsed.kind == "hf":
        fresh = is_type(parsed.name) and not is_folder(parsed.name)
        return "a type has none" if fresh else absent(parsed.name, ask, weights=True)
    registry = REGISTRIES.get(parsed.kind)
    return registry.missing(parsed.name, ask) if registry else ""


def structure_missing(spec: str, ask: Callable[[str], str | None]) -> str:
    """Why not even the structure of a network can be had here and now, "" where it can; `ask` as above."""
    parsed = parse_source(spec)
    here = parsed.kind != "hf" or is_type(parsed.name)
    return "" if here else absent(parsed.name, ask, weights=False)


def _named(parsed: SourceSpec, args: Mapping[str, JSON]) -> Iterator[tuple[Member, ...]]:
    name = parsed.name.partition(".")[0]
    left = [other for other in REGISTRIES[parsed.kind].relatives(name) if other != name]
    words = _WORDS.findall(name)
    for shared in range(len(words) - 1, -1, -1):
        ring = [other for other in left if _WORDS.findall(other)[:shared] == words[:shared]]
        left = [other for other in left if other not in ring]
        if ring:
            yield tuple(Member(source=f"{parsed.kind}:{other}", args=args) for other in ring)


def _on_hub(loaded: LoadedSource, names: Sequence[str]) -> tuple[Member, ...]:
    own = {key: loaded.args[key] for key in ("pooling", "dropout") if key in loaded.args}
    return tuple(Member(source=f"hf:{name}", args=own) for name in names)


def _thinner(loaded: LoadedSource) -> Iterator[Member]:
    count = _layer_count(loaded.args)
    if count is None or _stack(loaded.model, count) is None:
        return
    for fewer in range(1, count):
        kept = tuple(index * count // fewer for index in range(fewer))
        yield Member(source=loaded.source, args=_with_layers(loaded.args, kept), layers=kept)


def _layer_count(args: Mapping[str, JSON]) -> int | None:
    found = getattr(make(args["config"], "the network"), LAYERS, None)
    return found if type(found) is int else None


def _with_layers(args: Mapping[str, JSON], kept: Sequence[int]) -> dict[str, JSON]:
    """`args` with that many layers, and with the entries of the kept ones where a value lists all layers."""
    config = make(args["config"], "the network")
    whole = getattr(config, LAYERS)
    setattr(config, LAYERS, len(kept))
    values = {
        key: [value[index] for index in kept] if isinstance(value, list) and len(value) == whole else value
        for key, value in plain(config).items()
    }
    return {**args, "config": values}


def _stack(model: nn.Module, count: int) -> str | None:
    """The path of the one list of so many layers that `model` has."""
    found = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    return found[0] if len(found) == 1 else None


@torch.no_grad()
def from_layers(reference: nn.Module, member: Member) -> nn.Module:
    """The network of some layers of `reference`, all values copied from it, on its device.

    Raises SourceError where the two do not fit together.
    """
    device = next(reference.parameters()).device
    model = build_source(member.source, member.args, device=device)
    stack = _stack(model, len(member.layers))
    whole = dict((*reference.named_parameters(), *reference.named_buffers()))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        origin = _origin(name, stack, member.layers)
        if origin not in whole or whole[origin].shape != tensor.shape:
            raise SourceError(f"{member}: {name} has no counterpart among the weights of {member.source}")
        tensor.copy_(whole[origin])
    return model


def _origin(name: str, stack: str | None, layers: Sequence[int]) -> str:
    prefix = f"{stack}."
    if stack is None or not name.startswith(prefix):
        return name
    index, dot, rest = name.removeprefix(prefix).partition(".")
    return f"{prefix}{layers[int(index)]}{dot}{rest}"

"""A network with its weights and what it expects of its inputs; or the same structure without weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from penjing.core import Reads, SourceError
from penjing.sources import _code
from penjing.sources._builtin_models import build_builtin, load_builtin
from penjing.sources._head import head_paths, replace_heads
from penjing.sources._hf import build_network, load_network
from penjing.sources._limits import bounded, counted
from penjing.sources._registry import JSON, Registry, checked_args
from penjing.sources._spec import SourceSpec, parse_source
from penjing.sources._timm import Timm
from penjing.sources._torchvision import Torchvision
from penjing.sources._weights import fill, read_weights

REGISTRIES: Mapping[str, Registry] = {"timm": Timm(), "torchvision": Torchvision()}
BUILD_ERRORS = (
    TypeError,
    ValueError,
    RuntimeError,
    AssertionError,
    KeyError,
    AttributeError,
    NotImplementedError,
    ArithmeticError,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedSource:
    """A network ready to use.

    `model` is in eval mode. `build_source(source, args)` gives the same structure again. `reads` is what it expects of
    its inputs. `weights` says where the values came from: "hub", "none", "factory", "file NAME", "folder NAME" or
    "package NAME", and in brackets what of them is new, unused or converted. `family` is what related networks share.
    `own_labels` are what the outputs of a head that came with the weights stand for (classes; for CTC the symbols of
    its alphabet), () where nothing tells. `kept_head` says whether that head stayed, `head` why or why not.
    """

    model: nn.Module
    source: str
    args: Mapping[str, JSON]
    reads: Reads
    weights: str
    family: str
    own_labels: tuple[str, ...] = ()
    kept_head: bool = False
    head: str = ""


def load_source(
    spec: str,
    *,
    weights: str | None = None,
    num_classes: int | None = None,
    args: Mapping[str, JSON] | None = None,
    trust_files: bool = False,
    task: str | None = None,
    labels: Sequence[str] | None = None,
) -> LoadedSource:
    """Build the network that `spec` names (see `parse_source`) and give it weights.

    `weights`: None or "none"; "pretrained" (from the hub, or a package that ships them when the hub is out of
    reach); or a `.safetensors` or PyTorch file, where every key must fit. `num_classes` puts in new heads,
    drawn from torch's global generator, and keeps the pretrained body. `args` go to the network's builder, or into its
    configuration. `file:` and `hub:` run foreign code and need `trust_files=True`. `task` chooses the head of networks
    that come with several; None is the one that the weights were saved with. `labels` names the classes (or the symbols
    of an alphabet) in order, in place of `num_classes`: a pretrained head of transformers that was trained for exactly
    these, in any order, stays, with its outputs in their order. Raises SourceError.
    """
    parsed = parse_source(spec)
    num_classes = _counted(labels, num_classes)
    if num_classes is not None and num_classes < 1:
        raise SourceError(
            f"num_classes is {num_classes}; a classifier needs at least 1. Fix: give the number of classes"
        )
    if parsed.kind == "folder":
        raise SourceError(f"{spec!r} is a folder. Fix: {_of_folder(spec)}")
    if parsed.runs_code:
        return _load_code(parsed, weights, num_classes, args or {}, trust_files)
    if parsed.kind in ("hf", "builtin"):
        load = load_network if parsed.kind == "hf" else load_builtin
        options = checked_args(args)
        found = load(
            parsed.name, weights=weights, num_classes=num_classes, args=options, task=task, labels=labels
        )
        return LoadedSource(
            model=found.model,
            source=str(parsed),
            args=found.args,
            reads=found.reads,
            weights=found.weights,
            family=found.family,
            own_labels=found.own_labels,
            kept_head=found.kept_head,
            head=found.head,
        )
    return _load_named(parsed, weights, num_classes, checked_args(args))


def _counted(labels: Sequence[str] | None, num_classes: int | None) -> int | None:
    """How many outputs are asked for; SourceError where the two disagree."""
    if labels is None:
        return num_classes
    if num_classes not in (None, len(labels)):
        raise SourceError(
            f"num_classes is {num_classes}, and {len(labels)} labels are given. Fix: leave num_classes out"
        )
    return len(labels)


def _of_folder(path: str) -> str:
    if Path(path, "config.json").is_file() and not Path(path, "structure.json").is_file():
        return f"a network of transformers is named hf:{path}"
    return f"a network that penjing saved is opened by penjing.load({path!r})"


def build_source(source: str, args: Mapping[str, JSON], *, device: str | torch.device = "meta") -> nn.Module:
    """The structure that `load_source` returned as (`source`, `args`), in eval mode, values unspecified.

    Names in a registry only: sources that run code or that are folders raise SourceError, since an artifact
    may not name them. torch's global generator is left as it was.
    """
    parsed, options = parse_source(source), checked_args(args)
    if parsed.kind in ("hf", "builtin"):
        with torch.random.fork_rng(devices=[]):
            if parsed.kind == "hf":
                return build_network(source, options, device)
            return build_builtin(parsed.name, options, device)
    if parsed.kind not in REGISTRIES:
        raise SourceError(
            f"{source!r} cannot be rebuilt from its name: only timm:, torchvision:, hf: and builtin: networks can. "
            "Fix: build the network yourself and pass it as model="
        )
    registry = REGISTRIES[parsed.kind]
    registry.check(parsed.name)
    with torch.random.fork_rng(devices=[]):
        try:
            with bounded(str(parsed)), torch.device(device):
                return registry.build(parsed.name, options, initialize=False).eval()
        except BUILD_ERRORS:  # some builders compute with tensors, which meta cannot
            return _build(registry, parsed, options, initialize=False).to(device).eval()


def _load_named(
    parsed: SourceSpec, weights: str | None, num_classes: int | None, options: dict[str, JSON]
) -> LoadedSource:
    registry, name = REGISTRIES[parsed.kind], parsed.name
    registry.check(name)
    if weights == "pretrained":
        options = {**registry.pretrained_args(name), **options}
    original = dict(options)
    if num_classes is not None:
        options["num_classes"] = num_classes
    blank = weights in (None, "none")
    model = _build(registry, parsed, options, initialize=blank)
    skip = head_paths(model) if num_classes is not None else ()
    where = "none"
    if weights == "pretrained":
        state, where = registry.pretrained(name, original, model)
        fill(model, state, skip=skip, where=f"{parsed} ({where})")
    elif not blank and weights is not None:
        where = f"file {Path(weights).name}"
        fill(model, read_weights(weights), skip=skip, where=where)
    return LoadedSource(
        model=model.eval(),
        source=str(parsed),
        args=options,
        reads=registry.reads(name, options, model),
        weights=where,
        family=registry.family(name),
    )


def _build(
    registry: Registry, parsed: SourceSpec, options: Mapping[str, JSON], *, initialize: bool
) -> nn.Module:
    if options.keys() - {"num_classes"}:
        counted(lambda: registry.build(parsed.name, options, initialize=False), str(parsed))
    try:
        with bounded(str(parsed)):
            return registry.build(parsed.name, options, initialize=initialize)
    except BUILD_ERRORS as error:
        raise SourceError(
            f"{parsed} cannot be built with args {dict(options)}: {type(error).__name__}: {error}. "
            "Fix: give arguments its builder knows"
        ) from error


def _load_code(
    parsed: SourceSpec, weights: str | None, num_classes: int | None, args: Mapping[str, JSON], trusted: bool
) -> LoadedSource:
    if not trusted:
        raise SourceError(
            f"{parsed} runs code that penjing does not know. Fix: if you trust it, say so with trust_files=True (on "
            f"the command line: --model {parsed}); recipes and saved networks may never name it"
        )
    if weights == "pretrained":
        raise SourceError(
            f"{parsed} decides itself about its weights. Fix: pass its own arguments in args, or give a file "
            "of weights"
        )
    model = _code.make(parsed, args)
    if num_classes is not None:
        replace_heads(model, num_classes)
    where = "factory"
    if weights not in (None, "none"):
        where = f"file {Path(str(weights)).name}"
        fill(model, read_weights(str(weights)), skip=head_paths(model) if num_classes else (), where=where)
    options = dict(args) if num_classes is None else {**args, "num_classes": num_classes}
    family = type(model).__name__.lower()
    return LoadedSource(
        model=model.eval(),
        source=str(parsed),
        args=options,
        reads=_code.reads(model),
        weights=where,
        family=family,
    )

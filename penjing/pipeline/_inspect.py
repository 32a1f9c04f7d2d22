"""What a network is made of: sizes per layer, what may shrink, what may not and why."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from penjing.measure import count_params, macs_by_module, roofline, state_bytes
from penjing.pipeline._adjustable import Tell, adjustable, silently
from penjing.pipeline._answer import check_answer
from penjing.pipeline._files import read_json
from penjing.pipeline._heldout import run_of
from penjing.pipeline._open import open_network, sized
from penjing.structure import Structure, tensors_of, trace
from penjing.tasks import example_of


def inspect(
    spec: str,
    *,
    image_size: int | None = None,
    trust: bool = False,
    model: str | None = None,
    task: str | None = None,
    bound: bool = False,
    options: bool = False,
    runtime: str = "eager",
    data: str | None = None,
    tell: Tell = silently,
) -> dict[str, Any]:
    """Everything that a trace shows about a source, a saved network, or the slim network of a run.

    `model` names the code (file:PATH.py:FACTORY) that a saved network was made from, where it was; `task` chooses the
    head of a source that has several. A network that reads something else than its source tells says so by an attribute
    `example_inputs`: a tensor, a tuple or a dict of them.

    Keys: source, input_size, params, macs (of one example), size_bytes, layers, groups, frozen, unknown_ops; with
    `bound` also roofline (of one example, timed here), as `measure.roofline` tells it; with `options` also adjustments
    (`adjustable`), timed in `runtime`, fitted to `data` where it is given or the run's; of a run that tried methods
    also tried (its tried.json).
    """
    opened = open_network(spec, trust=trust, original=model, task=task)
    network = opened.model.eval()
    example = network.__dict__.pop("example_inputs", None)
    if example is None:
        example = example_of(sized(opened.reads, image_size, spec), 1)
        check_answer(spec, network, example, opened.reads)
    size = tuple(tensors_of(example)[0].shape[1:]) if tensors_of(example) else ()
    structure, macs = trace(network, example), macs_by_module(network, example)
    found = {
        "source": spec,
        "input_size": list(size),
        "params": count_params(network),
        "macs": macs[""],
        "size_bytes": state_bytes(network),
        "layers": _layers(network, macs),
        "groups": _groups(structure),
        "frozen": _frozen(structure),
        "unknown_ops": list(structure.unknown_ops),
        **_tried(spec),
    }
    found |= {"roofline": roofline(network, example).to_dict()} if bound else {}
    if options:
        found["adjustments"] = adjustable(
            spec, opened, network, example, runtime=runtime, data=data, task=task, tell=tell
        )
    return found


def _tried(spec: str) -> dict[str, Any]:
    run = run_of(spec)
    file = run / "tried.json" if run is not None else None
    return {"tried": read_json(file)} if file is not None and file.is_file() else {}


def _layers(model: nn.Module, macs: Mapping[str, int]) -> list[dict[str, Any]]:
    """Modules that hold parameters of their own or compute without children, in order."""
    found = []
    for path, module in model.named_modules():
        own = sum(weight.numel() for weight in module.parameters(recurse=False))
        leaf = not any(True for _ in module.children())
        if own or (leaf and macs.get(path)):
            shapes = [list(weight.shape) for weight in module.parameters(recurse=False)]
            kind = type(module).__name__
            found.append(
                {"path": path, "kind": kind, "params": own, "macs": macs.get(path, 0), "shapes": shapes}
            )
    return found


def _groups(structure: Structure) -> list[dict[str, Any]]:
    return [
        {
            "name": group.name,
            "granularity": group.granularity,
            "fidelity": group.fidelity,
            "units": len(group),
            "tensors": sorted({slot.name for slot in group.slots}),
        }
        for group in structure.groups
    ]


def _frozen(structure: Structure) -> list[dict[str, Any]]:
    """By module: which dims may not shrink, and why."""
    by_module: dict[str, list[dict[str, Any]]] = {}
    for item in structure.frozen:
        entry = {"parameter": item.parameter, "dim": item.dim, "count": item.count, "cause": item.cause}
        by_module.setdefault(item.module, []).append(entry)
    return [{"module": module, "dims": dims} for module, dims in by_module.items()]

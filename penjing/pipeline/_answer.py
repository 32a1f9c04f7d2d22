"""Whether a network takes the pictures it is given and answers with logits."""

import torch
from torch import nn

from penjing.core import SourceError


@torch.no_grad()
def check_answer(name: str, model: nn.Module, example: torch.Tensor, *, classes: int | None = None) -> None:
    """Raises `SourceError` unless `model`, in eval mode, maps `example` to logits [n, classes]."""
    model.eval()
    size = "x".join(map(str, example.shape[1:]))
    try:
        answer = model(example)
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise SourceError(
            f"{name} fails on pictures of {size}: {why}. "
            "Fix: give a size it takes (--image-size; without it the network's own is used), or, to inspect a network "
            "that reads something else, set its attribute example_inputs to a tensor, a tuple or a dict"
        ) from error
    if not isinstance(answer, torch.Tensor):
        raise SourceError(
            f"{name} answers with a {type(answer).__name__}, not with a tensor of logits. "
            "Fix: wrap it in a module whose forward returns the logits alone"
        )
    wanted = answer.shape[-1] if classes is None and answer.ndim else classes
    if tuple(answer.shape) != (len(example), wanted):
        raise SourceError(
            f"{name} answers {len(example)} pictures with a tensor of shape {tuple(answer.shape)}, "
            f"not with logits ({len(example)}, {classes or 'classes'}). Fix: return one row of logits per picture"
        )

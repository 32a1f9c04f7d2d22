"""What a network looks at, by integrated gradients as captum computes them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.runtimes import as_call, untouched

STEPS = 12
INSTALL = "pip install 'penjing[explain]'"

Logits = Callable[[Any], Tensor]


def attributions(
    model: nn.Module, inputs: Any, classes: Tensor, logits: Logits, *, steps: int = STEPS
) -> Tensor:
    """By how much each position of each example speaks for its class in `classes` [n], float32 [n, positions].

    Integrated gradients (Sundararajan, Taly & Yan, "Axiomatic attribution for deep networks", ICML 2017, equation 1)
    from an input of zeros, in `steps` steps: of pictures and sounds their absolute sum over channels, of token ids the
    sum over the dimensions of their embedding, and nothing for what the mask leaves out. `logits` finds [n, classes] in
    what the network gives. It is no cause: where inputs move together it divides the credit by the path, not by what
    the network would do without them.

    Raises UsageError where captum is missing, and where inputs are neither floating nor token ids of an embedding.
    """
    captum = _captum()
    args, kwargs = as_call(inputs)
    names, values = list(kwargs), [*args, *kwargs.values()]

    def forward(*given: Any) -> Tensor:
        given, rest = given[: len(args)], given[len(args) :]
        return logits(model(*given, **dict(zip(names, rest, strict=True))))

    place = next((i for i, value in enumerate(values) if isinstance(value, Tensor)), None)
    if place is None:
        raise UsageError("attributions need a tensor among the inputs")
    with untouched(model), torch.enable_grad(), _no_weight_gradients(model):
        model.eval()
        if values[place].is_floating_point():
            return _of_values(captum, forward, values, place, classes, steps)
        return _of_tokens(captum, forward, model, values, place, classes, steps, kwargs.get("attention_mask"))


def _of_values(
    captum: Any, forward: Callable[..., Tensor], values: list[Any], place: int, classes: Tensor, steps: int
) -> Tensor:
    rest = [value for i, value in enumerate(values) if i != place]

    def of(x: Tensor, *others: Any) -> Tensor:
        given = list(others)
        return forward(*given[:place], x, *given[place:])

    method = captum.IntegratedGradients(of)
    found = method.attribute(
        values[place], target=classes, additional_forward_args=tuple(rest) or None, n_steps=steps
    ).detach()
    found = found.abs()
    return (found.sum(1) if found.dim() == 4 else found).flatten(1).float()


def _of_tokens(
    captum: Any,
    forward: Callable[..., Tensor],
    model: nn.Module,
    values: list[Any],
    place: int,
    classes: Tensor,
    steps: int,
    mask: Tensor | None,
) -> Tensor:
    layer = _embedding_of(model, forward, values, values[place])
    method = captum.LayerIntegratedGradients(forward, layer)
    rest = tuple(values[:place] + values[place + 1 :])
    if place:
        raise UsageError("attributions need token ids as the first input")
    found = method.attribute(
        values[0],
        baselines=torch.zeros_like(values[0]),
        target=classes,
        additional_forward_args=rest or None,
        n_steps=steps,
    )
    told = found.detach().sum(-1).float()
    return told if mask is None else told * mask


def _embedding_of(
    model: nn.Module, forward: Callable[..., Tensor], values: list[Any], ids: Tensor
) -> nn.Module:
    """The embedding that the token ids are given to."""
    found: list[nn.Module] = []

    def hear(module: nn.Module, given: tuple[Any, ...], _: Any) -> None:
        if (
            given
            and isinstance(given[0], Tensor)
            and given[0].shape == ids.shape
            and torch.equal(given[0], ids)
        ):
            found.append(module)

    handles = [m.register_forward_hook(hear) for m in model.modules() if isinstance(m, nn.Embedding)]
    try:
        with torch.no_grad():
            forward(*values)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise UsageError(
            "no embedding of the network is given its token ids: nothing can be attributed to them"
        )
    return found[0]


@contextmanager
def _no_weight_gradients(model: nn.Module) -> Iterator[None]:
    """Without gradients of the weights, which nobody asks for."""
    asked = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in asked:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


def _captum() -> Any:
    try:
        import captum.attr
    except ImportError:
        raise UsageError(f"attributions need captum: {INSTALL}") from None
    return captum.attr


def able(inputs: Any) -> bool:
    """Whether captum is there."""
    try:
        _captum()
    except UsageError:
        return False
    return isinstance(inputs, Tensor | Mapping | tuple)

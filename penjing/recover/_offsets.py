"""What is added to a product's outputs by themselves, and how that may change."""

from torch import Tensor

from penjing.recover._refit import Refit
from penjing.structure import Meeting, Product, Survey


def bias_of(meeting: Meeting, item: Product, found: Survey, own: dict[str, Tensor]) -> Tensor | None:
    """The parameter, or the part of it, that takes the offset; None where there is none of its own.

    `found` is the survey of the network whose parameters are `own`.
    """
    if meeting.bias is None or meeting.bias not in found.lone:
        return None
    if found.uses[meeting.bias] != found.uses[meeting.name]:
        return None
    bias = item.offset if item.bias is not None else own[meeting.bias]
    return bias if bias is not None and bias.numel() == item.matrices.shape[:2].numel() else None


def offset_now(bias: Tensor | None, item: Product) -> Tensor | None:
    """The offset that the product comes with, where it may be changed."""
    if bias is None:
        return None
    if item.bias is None:
        return bias.new_zeros(item.matrices.shape[:2])
    return (item.beta * bias).reshape(item.matrices.shape[:2])


def write(item: Product, bias: Tensor | None, found: Refit) -> None:
    item.write(found.weight)
    if bias is None:
        return
    offset = found.offset.reshape(bias.shape)
    bias.copy_(offset / item.beta if item.bias is not None else bias + offset)


def less_added(y: Tensor, bias: Tensor | None, item: Product, positions: Tensor | None) -> Tensor:
    """Wanted outputs without what the operator adds to the product and will go on to add."""
    return y if bias is not None or item.bias is None else y - item.added(positions)

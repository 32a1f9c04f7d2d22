"""Tensors that no recorded call made, but that show the memory of one that was: `nn.Parameter(t)`, `t.data`."""

from collections.abc import Sequence

import torch

from penjing.core._graph import OpCall, Ref


class Aliases:
    """Finds the recorded stand-in whose memory another one shows in the same way. `recorded` may grow."""

    def __init__(self, recorded: Sequence[torch.Tensor]) -> None:
        self.found = False
        self._recorded, self._seen = recorded, 0
        self._owners: dict[tuple[int, ...], int] = {}

    def source(self, tensor: torch.Tensor) -> int | None:
        """The id of the latest such object."""
        if not tensor.is_meta:
            return None
        for known in self._recorded[self._seen :]:
            if known.is_meta:
                self._owners[_memory(known)] = id(known)
        self._seen = len(self._recorded)
        owner = self._owners.get(_memory(tensor))
        self.found |= owner is not None
        return owner


def alias(source: int, made: int, module: str) -> OpCall:
    """The call that would have made such a tensor."""
    return OpCall(
        op=torch.ops.aten.alias.default,
        args=(Ref(source),),
        kwargs={},
        inputs=(source,),
        outputs=(made,),
        module=module,
        function="alias",
    )


def _memory(tensor: torch.Tensor) -> tuple[int, ...]:
    storage = tensor.untyped_storage()._cdata
    return storage, int(tensor.storage_offset()), *tensor.shape, -1, *tensor.stride()

"""Groups taken apart where code cuts through them: `x[:, : c // 8]` speaks of some units and not of others."""

import numpy as np

from penjing.core._groups import PruneGroup
from penjing.structure._sizes._requirements import Live


class Parts:
    """A number per atom: atoms with different ones are never of one group."""

    def __init__(self) -> None:
        self._of: dict[int, int] = {}
        self._count = 0
        self._done: set[tuple[int, int]] = set()

    def codes(self, count: int) -> np.ndarray:
        """The numbers of `count` atoms."""
        found = np.zeros(count, dtype=np.int32)
        if self._of:
            found[list(self._of)] = list(self._of.values())
        return found

    def take_apart(self, group: PruneGroup, item: Live) -> bool:
        """Tell the units that a requirement speaks of from the others; False where it speaks of all of them or was
        tried before.
        """
        key = id(item.source), group.atoms[0]
        members = np.array(group.atoms)
        code = np.zeros(len(members), dtype=np.int64)
        for dim in (item.dim, *item.sizes.values()):
            if dim:
                code = 2 * code + np.isin(members, np.concatenate(dim))
        kinds, own = np.unique(code, return_inverse=True)
        if key in self._done or len(kinds) < 2:
            return False
        self._done.add(key)
        self._of.update(zip(group.atoms, (self._count + 1 + own.reshape(-1)).tolist(), strict=True))
        self._count += len(kinds)
        return True

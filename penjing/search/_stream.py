"""Where a network's residual streams run."""

from penjing.structure import Structure, residual_blocks


def stream_names(structure: Structure) -> tuple[str, ...]:
    """One tensor name for each group that a residual stream runs through: protecting these keeps the stream whole, and
    what lies inside the blocks may still shrink. Groups without a vector of their own (a norm's) are left out.
    """
    blocks = [block.path for block in residual_blocks(structure)]
    ranks = {name: len(state.shape) for state in structure.states for name in state.names}
    found: list[str] = []
    for group in structure.groups:
        names = [slot.name for slot in group.slots]
        within = {block for block in blocks for name in names if name.startswith(f"{block}.")}
        whole = len(within) == 1 and all(name.startswith(f"{next(iter(within))}.") for name in names)
        vectors = [name for name in names if ranks[name] == 1]
        if within and not whole and vectors:
            found.append(vectors[0])
    return tuple(found)

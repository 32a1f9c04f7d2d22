"""The modules of a network, walked once."""

from collections.abc import Iterable

from torch import nn

Named = list[tuple[str, nn.Module]]


def every_path(model: nn.Module) -> Named:
    """What `named_modules(remove_duplicate=False)` gives, in its order: a shared module under each of its paths."""
    found: Named = []
    pending: Named = [("", model)]
    while pending:
        path, module = pending.pop()
        found.append((path, module))
        children = module.__dict__["_modules"]
        if children:
            prefix = f"{path}." if path else ""
            pending.extend((prefix + n, m) for n, m in reversed(children.items()) if m is not None)
    return found


def first_paths(named: Iterable[tuple[str, nn.Module]]) -> Named:
    """Each module once, under its first path."""
    seen: dict[int, tuple[str, nn.Module]] = {}
    for entry in named:
        seen.setdefault(id(entry[1]), entry)
    return list(seen.values())

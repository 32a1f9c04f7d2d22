"""The fingerprint of a network's structure: names, shapes, dtypes, module classes and ties; never the weights."""

import hashlib

from torch import nn

from penjing.structure._network._walk import every_path, first_paths, named_buffers, named_parameters


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over module classes, tensor shapes and which names share a tensor. Weights do not count."""
    named = every_path(model)
    lines = [f"{path}|{type(module).__qualname__}" for path, module in first_paths(named)]
    for kind, tensors in (("p", named_parameters(named)), ("b", named_buffers(named))):
        first: dict[int, str] = {}
        for name, tensor in tensors:
            tied = first.setdefault(id(tensor), name)
            shared = "" if tied == name else f"|{tied}"
            lines.append(f"{kind}|{name}|{tuple(tensor.shape)}|{tensor.dtype}{shared}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

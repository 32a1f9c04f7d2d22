"""The fingerprint of a network's structure: names, shapes, dtypes and module classes; never the weights."""

import hashlib

from torch import nn

from penjing.structure._walk import every_path, first_paths, named_buffers, named_parameters


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over module classes and tensor shapes. Equal for two networks a plan fits alike; weights do not count."""
    named = every_path(model)
    lines = [f"{path}|{type(module).__qualname__}" for path, module in first_paths(named)]
    for kind, tensors in (("p", named_parameters(named)), ("b", named_buffers(named))):
        lines.extend(f"{kind}|{name}|{tuple(t.shape)}|{t.dtype}" for name, t in tensors)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

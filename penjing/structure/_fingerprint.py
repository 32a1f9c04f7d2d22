"""The fingerprint of a network's structure: names, shapes, dtypes and module classes; never the weights."""

import hashlib

from torch import nn


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over module classes and tensor shapes. Equal for two networks a plan fits alike; weights do not count."""
    lines = [f"{path}|{type(module).__qualname__}" for path, module in model.named_modules()]
    for kind, tensors in (
        ("p", model.named_parameters(remove_duplicate=False)),
        ("b", model.named_buffers(remove_duplicate=False)),
    ):
        lines.extend(f"{kind}|{name}|{tuple(t.shape)}|{t.dtype}" for name, t in tensors)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

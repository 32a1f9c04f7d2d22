"""Parts of torch that look at devices and values, made to take stand-ins."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributions import Distribution


@contextmanager
def autocast_by_cpu() -> Iterator[None]:
    """`torch.autocast(x.device.type)` knows no meta device: stand-ins are cast as the CPU would."""
    enter = torch.autocast.__init__

    def on_cpu(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        enter(self, "cpu" if device_type == "meta" else device_type, *args, **kwargs)

    torch.autocast.__init__ = on_cpu  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__init__ = enter  # type: ignore[method-assign]


@contextmanager
def distributions_unchecked() -> Iterator[None]:
    """`torch.distributions` reads the values of its arguments to check them."""
    checked = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(checked)

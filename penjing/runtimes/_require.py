"""Packages of extras, imported at their first use; and causes told in one line."""

import importlib
import warnings
from types import ModuleType

import torch
from torch import nn

from penjing.core import UsageError, clean, cut

HALF = (torch.float16, torch.bfloat16)
LONGEST = 240  # characters of a cause: operators that are missing stand at the end


def require(module: str, runtime: str, extra: str) -> ModuleType:
    """The imported `module`, or a UsageError that names the extra of Penjing that brings it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that they import in turn
            return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{runtime} needs the package {module.partition('.')[0]!r}, which cannot be imported ({error}). "
            f"Fix: pip install 'penjing[{extra}]'"
        ) from error


def cannot_take(model: object, runtime: str, error: BaseException) -> UsageError:
    """What to raise where `runtime` does not take the network: runtime, cause and way out."""
    return UsageError(
        f"runtime {runtime} cannot take {type(model).__name__}: {first_line(error)}\n"
        "Fix: use runtime eager, which runs whatever PyTorch runs"
    )


def cannot_write(model: nn.Module, form: str, error: BaseException) -> UsageError:
    """What to raise where no file of `form` can be written that answers as the network does."""
    halves = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.dtype in HALF}
    fix = (
        f"Fix: its weights are {' and '.join(sorted(halves))}, for which kernels are missing; write model.float()"
        if halves
        else "Fix: write that part of the forward in operators that can be exported, without branches on values"
    )
    return UsageError(f"{type(model).__name__} cannot be written for {form}: {first_line(error)}\n{fix}")


def first_line(error: BaseException) -> str:
    """The kind and first line of what was raised first in the chain of causes."""
    chain, seen = error, {id(error)}
    while chain.__cause__ is not None and id(chain.__cause__) not in seen:
        chain = chain.__cause__
        seen.add(id(chain))
    lines = [line.strip() for line in str(chain).splitlines() if line.strip()]
    return f"{type(chain).__name__}: {cut(clean(lines[0] if lines else ''), LONGEST)}"

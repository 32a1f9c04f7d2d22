"""Optional packages, imported at their first use."""

import importlib
from types import ModuleType

from penjing.core import SourceError


def require(module: str, extra: str = "vision") -> ModuleType:
    """The imported `module`, or a SourceError that names the extra of Penjing that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SourceError(
            f"The package {module.partition('.')[0]!r} is needed for this source and cannot be imported "
            f"({error}). "
            f"Fix: pip install 'penjing[{extra}]'"
        ) from error

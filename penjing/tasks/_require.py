"""Optional packages, imported at their first use."""

import importlib
from types import ModuleType

from penjing.core import DataError


def require(module: str, install: str = "penjing[vision]") -> ModuleType:
    """The imported `module`, or a DataError that names what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"The package {module.partition('.')[0]!r} is needed for this data and cannot be imported "
            f"({error}). Fix: pip install '{install}'"
        ) from error

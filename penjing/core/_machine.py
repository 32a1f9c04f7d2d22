"""What this machine has."""

import math
import os


def physical_memory() -> float:
    """Bytes of memory; infinity where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # no POSIX
        return math.inf

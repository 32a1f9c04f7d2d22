"""Errors a user can act on, and the one that is our own fault.

Every message says what is wrong, where, why and the fix.
"""

from collections.abc import Mapping


class PenjingError(Exception):
    """Base of every error Penjing raises on purpose; `exit_code` is the command line's answer."""

    exit_code = 2


class UsageError(PenjingError, ValueError):
    """An argument, option or combination that cannot work."""


class SourceError(PenjingError):
    """A model that cannot be found, built or filled with weights."""


class DataError(PenjingError):
    """Data that cannot be read, or is not what the task needs."""


class PlanError(PenjingError):
    """A plan that is malformed, or belongs to another network."""


class TraceError(PenjingError):
    """A network whose forward cannot be followed with the given example inputs."""


class VerificationError(PenjingError):
    """A smaller network that is not proven equal to the masked one."""


class BudgetError(PenjingError):
    """A budget that cannot be met; `nearest` is the closest reachable value of `metric`, in its base unit (ms, bytes, a
    count). `missed` holds such values of all metrics that are in the way, where several are known.
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        nearest: float | None = None,
        metric: str = "",
        missed: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(message)
        self.nearest, self.metric = nearest, metric
        own = {metric: nearest} if metric and nearest is not None else {}
        self.missed: Mapping[str, float] = own if missed is None else missed


class RunError(PenjingError):
    """A run folder that is locked, foreign, torn, or out of space."""


class TrainingError(PenjingError):
    """Training that left the numbers (NaN or infinite loss); the last good state was kept."""


class ArtifactError(PenjingError):
    """A saved network that is torn, altered or cannot be rebuilt."""


class InternalError(PenjingError):
    """A broken promise inside Penjing: please report it."""

    exit_code = 1

"""What a run tells whoever is watching."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One piece of news of a run.

    `plan` lists the steps to come with their predicted seconds; `start`, `progress`, `finish` and `skip`
    (finished in an earlier process) speak of one step, `note` of something the user should know.
    """

    kind: Literal["plan", "start", "progress", "finish", "skip", "note"]
    step: str = ""
    stage: str = ""
    done: int = 0
    total: int = 0
    text: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Listens to nothing."""

"""What the training functions need from data and from their callers."""

from collections.abc import Callable, Mapping
from typing import Any

from penjing.tasks import Data as Data
from penjing.tasks import SequenceTask as SequenceTask
from penjing.tasks import Task as Task
from penjing.tasks import TracedData as TracedData

Batch = Any
Figures = Mapping[str, float]
Progress = Callable[[str, int, int, Figures], None]

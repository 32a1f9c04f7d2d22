"""Numbers with units: complexity, latency, memory, speed-up. Networks are left as they were."""

import sys
from types import ModuleType

from penjing.measure._blocks import block_times as block_times
from penjing.measure._blocks import blocks_of as blocks_of
from penjing.measure._complexity import Complexity as Complexity
from penjing.measure._complexity import measure as measure
from penjing.measure._latency import Speedup as Speedup
from penjing.measure._latency import eta as eta
from penjing.measure._latency import latency as latency
from penjing.measure._latency import speedup as speedup
from penjing.measure._macs import count_macs as count_macs
from penjing.measure._macs import macs_by_module as macs_by_module
from penjing.measure._memory import peak_memory as peak_memory
from penjing.measure._roofline import OpBound as OpBound
from penjing.measure._roofline import Peaks as Peaks
from penjing.measure._roofline import Roofline as Roofline
from penjing.measure._roofline import measure_peaks as measure_peaks
from penjing.measure._roofline import roofline as roofline
from penjing.measure._state import count_params as count_params
from penjing.measure._state import state_bytes as state_bytes
from penjing.measure._timekeeper import Timekeeper as Timekeeper
from penjing.measure._timekeeper import Timing as Timing
from penjing.measure._zeros import Zeros as Zeros
from penjing.measure._zeros import measure_zeros as measure_zeros


class _Room(ModuleType):
    """`penjing.measure` is this room, and calling it calls `measure`."""

    __call__ = staticmethod(measure)


sys.modules[__name__].__class__ = _Room

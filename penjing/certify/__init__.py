"""Prove: whether a smaller network is good enough, by statistics that say how sure they are."""

import sys
from types import ModuleType

from penjing.certify._bootstrap import Bounds as Bounds
from penjing.certify._bootstrap import bounds as bounds
from penjing.certify._bootstrap import certify_metric as certify_metric
from penjing.certify._calibration import Calibration as Calibration
from penjing.certify._calibration import calibration as calibration
from penjing.certify._calibration import temperature as temperature
from penjing.certify._certify import certify as certify
from penjing.certify._certify import check_limits as check_limits
from penjing.certify._certify import confidence as confidence
from penjing.certify._flips import Flips as Flips
from penjing.certify._flips import flips as flips
from penjing.certify._parts import Part as Part
from penjing.certify._parts import Parts as Parts
from penjing.certify._parts import worst_parts as worst_parts
from penjing.certify._sequence import in_order as in_order
from penjing.certify._sums import Sums as Sums
from penjing.certify._sums import f1_sums as f1_sums
from penjing.certify._sums import ratio_sums as ratio_sums
from penjing.certify._sums import recall_sums as recall_sums
from penjing.certify._tango import borne as borne
from penjing.certify._tango import critical_values as critical_values
from penjing.certify._tango import examples_needed as examples_needed
from penjing.certify._tango import power as power


class _Room(ModuleType):
    """`penjing.certify` is this room, and calling it calls `certify`."""

    __call__ = staticmethod(certify)


sys.modules[__name__].__class__ = _Room

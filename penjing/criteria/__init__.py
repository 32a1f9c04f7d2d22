"""Rank the units of a group."""

from penjing.criteria import _activation as _activation
from penjing.criteria import _fisher as _fisher
from penjing.criteria import _fpgm as _fpgm
from penjing.criteria import _magnitude as _magnitude
from penjing.criteria import _taylor as _taylor
from penjing.criteria._calibration import run_batch as run_batch
from penjing.criteria._registry import CRITERIA as CRITERIA
from penjing.criteria._registry import Context as Context
from penjing.criteria._registry import Score as Score
from penjing.criteria._registry import criterion as criterion
from penjing.criteria._registry import loss_units as loss_units
from penjing.criteria._registry import prepare_criterion as prepare_criterion
from penjing.criteria._registry import unit_scores as unit_scores

"""Choose a plan under a budget."""

from penjing.search._choose import nearest_told as nearest_told
from penjing.search._cost import CostModel as CostModel
from penjing.search._levers import Levers as Levers
from penjing.search._prune import prune as prune
from penjing.search._select import DEFAULT_GRANULARITY as DEFAULT_GRANULARITY
from penjing.search._select import Rounding as Rounding
from penjing.search._to_latency import Aimed as Aimed
from penjing.search._trim import Dropped as Dropped
from penjing.search._trim import TrimReport as TrimReport
from penjing.search._trim import trim as trim
from penjing.search._within_time import fastest as fastest

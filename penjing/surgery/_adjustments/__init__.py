"""Adjustments: what can stand in for layers, norms, pooling and activations, and for the links between them."""

from penjing.surgery._adjustments import _activations as _activations
from penjing.surgery._adjustments import _factors as _factors
from penjing.surgery._adjustments import _folds as _folds
from penjing.surgery._adjustments import _heads as _heads
from penjing.surgery._adjustments import _inputs as _inputs
from penjing.surgery._adjustments import _kernels as _kernels
from penjing.surgery._adjustments import _links as _links
from penjing.surgery._adjustments import _mixers as _mixers
from penjing.surgery._adjustments import _pools as _pools
from penjing.surgery._adjustments._registry import ADJUSTMENTS as ADJUSTMENTS
from penjing.surgery._adjustments._registry import change as change
from penjing.surgery._adjustments._registry import keeps_function as keeps_function
from penjing.surgery._adjustments._registry import told as told

"""Change a network's structure, and prove the change."""

from penjing.surgery._adjusting import Adjustable as Adjustable
from penjing.surgery._adjusting import adjust as adjust
from penjing.surgery._adjusting import adjustments as adjustments
from penjing.surgery._adjustments import ADJUSTMENTS
from penjing.surgery._adjustments import told as told
from penjing.surgery._apply import apply as apply
from penjing.surgery._apply import named_states as named_states
from penjing.surgery._cut import Cut as Cut
from penjing.surgery._cut import cut as cut
from penjing.surgery._fold_norms import fold_norms as fold_norms
from penjing.surgery._optimizer import remap_optimizer as remap_optimizer
from penjing.surgery._planning import plan_removal as plan_removal
from penjing.surgery._verify import Verification as Verification
from penjing.surgery._verify import check as check
from penjing.surgery._verify import verify as verify

ADJUSTMENT_KINDS = tuple(sorted(ADJUSTMENTS))

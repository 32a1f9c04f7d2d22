"""What every op does to dims: one registry, one file per family."""

from penjing.structure._rules import _algebra as _algebra
from penjing.structure._rules import _contract as _contract
from penjing.structure._rules import _cuts as _cuts
from penjing.structure._rules import _index as _index
from penjing.structure._rules import _losses as _losses
from penjing.structure._rules import _places as _places
from penjing.structure._rules import _reduce as _reduce
from penjing.structure._rules import _spectral as _spectral
from penjing.structure._rules import _squares as _squares
from penjing.structure._rules import _views as _views
from penjing.structure._rules._elementwise import pointwise as pointwise
from penjing.structure._rules._elementwise import unknown as unknown
from penjing.structure._rules._places import carry_places as carry_places
from penjing.structure._rules._registry import RULES as RULES
from penjing.structure._rules._registry import Facts as Facts
from penjing.structure._rules._registry import Requirement as Requirement
from penjing.structure._rules._registry import Rule as Rule
from penjing.structure._rules._registry import Site as Site
from penjing.structure._rules._registry import Spanned as Spanned
from penjing.structure._rules._registry import is_pointwise as is_pointwise

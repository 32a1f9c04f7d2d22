"""Trace, labels, rules and groups: what a network is made of and what goes together."""

from penjing.structure._atoms import Dim as Dim
from penjing.structure._attention import ATTENTION as ATTENTION
from penjing.structure._attention import free_attention as free_attention
from penjing.structure._attention import is_stock_attention as is_stock_attention
from penjing.structure._attributes import set_attribute as set_attribute
from penjing.structure._blocks import Block as Block
from penjing.structure._blocks import residual_blocks as residual_blocks
from penjing.structure._calling import ExampleInputs as ExampleInputs
from penjing.structure._calling import call_with as call_with
from penjing.structure._calling import check_example as check_example
from penjing.structure._calling import output_tensors as output_tensors
from penjing.structure._collector import collector_paused as collector_paused
from penjing.structure._fingerprint import fingerprint as fingerprint
from penjing.structure._leftovers import no_leftovers as no_leftovers
from penjing.structure._merge import copied as copied
from penjing.structure._merge import merge_weights as merge_weights
from penjing.structure._plain import loose_modules as loose_modules
from penjing.structure._plain import plain_tensors as plain_tensors
from penjing.structure._provenance import Attr as Attr
from penjing.structure._refusals import refuse_unsupported as refuse_unsupported
from penjing.structure._requirements import kept_size as kept_size
from penjing.structure._rules import Spanned as Spanned
from penjing.structure._structure import Structure as Structure
from penjing.structure._structure import trace as trace
from penjing.structure._trace import Trace as Trace
from penjing.structure._trace import trace_forward as trace_forward

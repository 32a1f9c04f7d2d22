"""Hand a network over: plain artifacts."""

from penjing.export._artifact import TOKENIZER as TOKENIZER
from penjing.export._artifact import load as load
from penjing.export._artifact import read_structure as read_structure
from penjing.export._artifact import save as save

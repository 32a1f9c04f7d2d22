"""Hand a network over: plain artifacts, and files for other runtimes."""

from penjing.export._artifact import TOKENIZER as TOKENIZER
from penjing.export._artifact import load as load
from penjing.export._artifact import read_structure as read_structure
from penjing.export._artifact import save as save
from penjing.export._artifact import write_card as write_card
from penjing.export._deployed import FORMATS as FORMATS
from penjing.export._deployed import Exported as Exported
from penjing.export._deployed import exported_record as exported_record
from penjing.export._deployed import open_exported as open_exported
from penjing.export._deployed import to_onnx as to_onnx
from penjing.export._deployed import to_openvino as to_openvino

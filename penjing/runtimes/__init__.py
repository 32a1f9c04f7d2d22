"""A network as it runs: the same network in PyTorch, ONNX Runtime and others. Networks are left as they were."""

from penjing.runtimes._deliver_onnx import Check as Check
from penjing.runtimes._deliver_onnx import Delivered as Delivered
from penjing.runtimes._deliver_onnx import deliver_onnx as deliver_onnx
from penjing.runtimes._deliver_openvino import deliver_openvino as deliver_openvino
from penjing.runtimes._eager import Eager as Eager
from penjing.runtimes._eager import eager as eager
from penjing.runtimes._from_file import FromFile as FromFile
from penjing.runtimes._from_file import from_record as from_record
from penjing.runtimes._graph import quiet as quiet
from penjing.runtimes._inputs import ExampleInputs as ExampleInputs
from penjing.runtimes._inputs import as_call as as_call
from penjing.runtimes._inputs import batch_of as batch_of
from penjing.runtimes._inputs import forward as forward
from penjing.runtimes._inputs import map_tensors as map_tensors
from penjing.runtimes._inputs import rebatch as rebatch
from penjing.runtimes._inputs import tensors_of as tensors_of
from penjing.runtimes._place import device_of as device_of
from penjing.runtimes._place import placed as placed
from penjing.runtimes._place import untouched as untouched
from penjing.runtimes._prepared import NodeTime as NodeTime
from penjing.runtimes._prepared import Prepared as Prepared
from penjing.runtimes._prepared import steady as steady
from penjing.runtimes._registry import RUNTIMES as RUNTIMES
from penjing.runtimes._registry import prepare as prepare
from penjing.runtimes._registry import refuse_unknown_runtime as refuse_unknown_runtime
from penjing.runtimes._versions import versions_of as versions_of

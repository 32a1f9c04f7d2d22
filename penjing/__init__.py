"""Penjing shapes a neural network to a budget: smaller, faster, dense, and proven good enough.

>>> import penjing as pj
>>> import torch
>>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
>>> slim, plan = pj.prune(net, torch.randn(2, 8), ratio=0.5)
>>> slim[0].out_features, pj.verify(net, slim, plan, torch.randn(2, 8)).passed
(8, True)
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Budget": "core",
    "Certificate": "core",
    "Margin": "core",
    "Measurement": "core",
    "Frozen": "core",
    "Plan": "core",
    "PruneGroup": "core",
    "Pictures": "core",
    "Sounds": "core",
    "Texts": "core",
    "PenjingError": "core",
    "ArtifactError": "core",
    "BudgetError": "core",
    "DataError": "core",
    "PlanError": "core",
    "RunError": "core",
    "SourceError": "core",
    "TraceError": "core",
    "TrainingError": "core",
    "UsageError": "core",
    "VerificationError": "core",
    "Structure": "structure",
    "trace": "structure",
    "Verification": "surgery",
    "adjust": "surgery",
    "adjustments": "surgery",
    "fold_norms": "surgery",
    "apply": "surgery",
    "verify": "surgery",
    "remap_optimizer": "surgery",
    "criterion": "criteria",
    "Complexity": "measure",
    "measure": "measure",
    "speedup": "measure",
    "distil": "recover",
    "certify": "certify",
    "certify_metric": "certify",
    "worst_parts": "certify",
    "fit_adjusted": "recover",
    "recover": "recover",
    "reestimate_bn": "recover",
    "transfer": "recover",
    "prune": "search",
    "trim": "search",
    "load": "export",
    "save": "export",
    "to_onnx": "export",
    "to_openvino": "export",
    "load_source": "sources",
    "image_classification": "tasks",
    "image_data": "tasks",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'penjing' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}"
        )
    room = importlib.import_module(f"penjing.{_HOMES[name]}")
    return room if name == _HOMES[name] else getattr(room, name)


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from penjing.certify import certify as certify
    from penjing.certify import certify_metric as certify_metric
    from penjing.certify import worst_parts as worst_parts
    from penjing.core import ArtifactError as ArtifactError
    from penjing.core import Budget as Budget
    from penjing.core import BudgetError as BudgetError
    from penjing.core import Certificate as Certificate
    from penjing.core import DataError as DataError
    from penjing.core import Frozen as Frozen
    from penjing.core import Margin as Margin
    from penjing.core import Measurement as Measurement
    from penjing.core import PenjingError as PenjingError
    from penjing.core import Pictures as Pictures
    from penjing.core import Plan as Plan
    from penjing.core import PlanError as PlanError
    from penjing.core import PruneGroup as PruneGroup
    from penjing.core import RunError as RunError
    from penjing.core import Sounds as Sounds
    from penjing.core import SourceError as SourceError
    from penjing.core import Texts as Texts
    from penjing.core import TraceError as TraceError
    from penjing.core import TrainingError as TrainingError
    from penjing.core import UsageError as UsageError
    from penjing.core import VerificationError as VerificationError
    from penjing.criteria import criterion as criterion
    from penjing.export import load as load
    from penjing.export import save as save
    from penjing.export import to_onnx as to_onnx
    from penjing.export import to_openvino as to_openvino
    from penjing.measure import Complexity as Complexity
    from penjing.measure import measure as measure
    from penjing.measure import speedup as speedup
    from penjing.recover import distil as distil
    from penjing.recover import fit_adjusted as fit_adjusted
    from penjing.recover import recover as recover
    from penjing.recover import reestimate_bn as reestimate_bn
    from penjing.recover import transfer as transfer
    from penjing.search import prune as prune
    from penjing.search import trim as trim
    from penjing.sources import load_source as load_source
    from penjing.structure import Structure as Structure
    from penjing.structure import trace as trace
    from penjing.surgery import Verification as Verification
    from penjing.surgery import adjust as adjust
    from penjing.surgery import adjustments as adjustments
    from penjing.surgery import apply as apply
    from penjing.surgery import fold_norms as fold_norms
    from penjing.surgery import remap_optimizer as remap_optimizer
    from penjing.surgery import verify as verify
    from penjing.tasks import image_classification as image_classification
    from penjing.tasks import image_data as image_data

"""The defaults of each step, in one place."""

from dataclasses import dataclass, field
from typing import Literal

from penjing.recover._training import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferDefaults:
    """Fine-tuning a pretrained base."""

    training: Training = field(
        default_factory=lambda: Training(epochs=6, batch_size=32, lr=3e-3, weight_decay=0.05, augment=True)
    )
    probe_epochs: int = 10
    probe_lr: float = 3e-3
    probe_augment: bool | str = False
    layer_decay: float = 1.0
    regularizer: str = "weight_decay"
    bn_examples: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilDefaults:
    """Teaching a student by a teacher."""

    training: Training = field(
        default_factory=lambda: Training(epochs=8, batch_size=64, lr=1e-3, weight_decay=0.05, augment=True)
    )
    loss: str = "auto"
    temperature: float | Literal["auto"] = "auto"
    weight: float | Literal["auto"] = "auto"
    guide: str = "none"
    guide_alpha: float = 1.0
    hidden: float | Literal["auto"] = "auto"
    hidden_layers: str = "uniform"
    attention: float = 0.0
    attention_layer: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverDefaults:
    """Winning back the accuracy of a pruned network."""

    training: Training = field(
        default_factory=lambda: Training(
            epochs=8, batch_size=64, lr=1e-3, weight_decay=0.05, warmup=0.05, augment=True
        )
    )
    loss: str = "auto"
    temperature: float | Literal["auto"] = "auto"
    weight: float | Literal["auto"] = "auto"
    guide: str = "none"
    guide_alpha: float = 1.0
    hidden: float | Literal["auto"] = "auto"
    hidden_layers: str = "uniform"
    attention: float = 0.0
    attention_layer: int = -1
    bn_examples: int = 1024
    reconstruct: bool | str = "auto"
    reconstruct_examples: int = 1024


TRANSFER = TransferDefaults()
DISTIL = DistilDefaults()
RECOVER = RecoverDefaults()

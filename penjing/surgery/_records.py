"""Modules keep their sizes in attributes that their forward does not read; they follow the tensors."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def rebuild_records(module: nn.Module) -> None:
    """Make `in_features`, `num_features` and the like say what the tensors say."""
    for kind, rebuild in _RECORDS:
        if isinstance(module, kind):
            rebuild(module)
            return


def _linear(module: Any) -> None:
    module.out_features, module.in_features = module.weight.shape


def _convolution(module: Any) -> None:
    outs, ins = module.weight.shape[:2]
    if isinstance(module, _ConvTransposeNd):
        outs, ins = ins, outs
        module.in_channels, module.out_channels = ins, outs * module.groups
    else:
        module.in_channels, module.out_channels = ins * module.groups, outs
    module.kernel_size = tuple(module.weight.shape[2:])


def _norm(module: Any) -> None:
    held = module.weight if module.weight is not None else module.running_mean
    if held is not None:
        module.num_features = held.shape[0]


def _group_norm(module: Any) -> None:
    if module.weight is not None:
        module.num_channels = module.weight.shape[0]


def _layer_norm(module: Any) -> None:
    if module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)


def _embedding(module: Any) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _prelu(module: Any) -> None:
    module.num_parameters = module.weight.shape[0]


def _recurrent(module: Any) -> None:
    module.input_size = module.weight_ih_l0.shape[1]
    module.hidden_size = module.weight_hh_l0.shape[0] // _GATES.get(module.mode, 1)
    if module.proj_size:
        module.proj_size = module.weight_hr_l0.shape[0]


_GATES = {"LSTM": 4, "GRU": 3}

_RECORDS: tuple[tuple[type | tuple[type, ...], Callable[[Any], None]], ...] = (
    (nn.Linear, _linear),
    (_ConvNd, _convolution),
    (_NormBase, _norm),
    (nn.GroupNorm, _group_norm),
    ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    (nn.Embedding, _embedding),
    (nn.EmbeddingBag, _embedding),
    (nn.PReLU, _prelu),
    (nn.RNNBase, _recurrent),
)

"""The small things that break others, on the zoo's own networks: exact kept shapes, a passed proof, and a twin.

The twin uses nothing of the library: a unit is switched off by zeroing what produces it; then exactly the slices that
the unit claims to own downstream must have become without effect.
"""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import penjing as pj
from benchmarks.networks import build
from penjing.structure import call_with, output_tensors

Shape = tuple[int, ...]

KEPT: dict[str, dict[str, Shape]] = {
    "channel_shuffle_by_views": {
        "stem.0.weight": (12, 3, 3, 3), "one.0.weight": (24, 3, 1, 1), "two.0.weight": (12, 6, 1, 1),
    },
    "flip_channels": {"0.0.weight": (8, 3, 3, 3), "2.0.weight": (8, 8, 3, 3)},
    "roll_channels": {"0.0.weight": (16, 3, 3, 3), "2.0.weight": (8, 16, 3, 3)},
    "roll_pixels": {"0.0.weight": (8, 3, 3, 3), "2.0.weight": (8, 8, 3, 3)},
    "slice_gate": {"both.0.weight": (8, 3, 3, 3), "value.0.weight": (4, 3, 3, 3), "head.2.weight": (10, 8)},
    "glu_channels": {"0.0.weight": (8, 3, 3, 3), "2.0.weight": (8, 4, 3, 3)},
    "pixel_shuffle": {"1.weight": (16, 8, 3, 3), "3.0.weight": (3, 4, 3, 3)},
    "pixel_unshuffle": {"0.0.weight": (4, 3, 3, 3), "2.0.weight": (8, 16, 3, 3)},
    "two_group_counts": {
        "stem.0.weight": (12, 3, 3, 3), "a.0.weight": (24, 6, 3, 3), "b.0.weight": (24, 4, 3, 3),
        "c.0.weight": (24, 3, 3, 3),
    },
    "depthwise_multiplier": {"1.0.weight": (12, 1, 3, 3), "2.0.weight": (8, 12, 1, 1)},
    "grouped_transposed": {"1.weight": (8, 3, 4, 4), "3.weight": (12, 1, 3, 3), "4.0.weight": (4, 12, 3, 3)},
    "lstm_bidirectional_stacked": {"rnn.weight_hh_l0": (32, 8), "rnn.weight_ih_l1_reverse": (32, 16)},
    "gru": {"rnn.weight_ih_l0": (24, 8), "rnn.weight_hh_l0": (24, 8)},
    "lstm_projected": {"rnn.weight_hr_l0": (5, 8), "rnn.weight_ih_l1": (32, 5)},
    "packed_tagger": {"table.weight": (50, 6), "rnn.weight_hh_l0": (32, 8)},
    "cells": {"gru.weight_hh": (24, 8), "lstm.weight_hh": (24, 6)},
    "instance_norm": {"0.weight": (8, 3, 3, 3), "1.running_mean": (8,), "3.weight": (8, 8, 3, 3)},
    "layer_norm_chw": {"0.weight": (8, 3, 3, 3), "1.weight": (8, 16, 16), "3.weight": (8, 8, 3, 3)},
    "mha_kdim_vdim": {
        "attention.q_proj_weight": (16, 16), "attention.k_proj_weight": (16, 12),
        "attention.v_proj_weight": (16, 20), "attention.out_proj.weight": (16, 16),
    },
    "softmax_channels": {"0.0.weight": (8, 3, 3, 3), "2.0.weight": (8, 8, 3, 3)},
    "fft_channels": {"0.0.weight": (16, 3, 3, 3), "2.0.weight": (12, 16, 3, 3)},
    "fourier_unit": {"stem.0.weight": (8, 3, 3, 3), "mix.0.weight": (16, 16, 1, 1)},
    "gpt_conv1d": {"table.weight": (60, 16), "qkv.weight": (16, 48), "up.weight": (16, 32)},
    "grouped_queries_rotary": {"q.weight": (16, 24), "k.weight": (8, 24), "out.weight": (24, 16)},
    "two_streams": {
        "to_large.weight": (16, 8), "cross_large.in_proj_weight": (48, 16), "cross_small.in_proj_weight": (24, 8),
    },
    "tcn_weight_norm": {"0.weight": (8, 4, 3), "3.weight": (8, 8, 3), "6.weight": (12, 8, 3)},
    "dcgan_discriminator_spectral_norm": {"0.weight": (8, 3, 4, 4), "2.weight": (16, 8, 4, 4), "5.weight": (1, 256)},
    "frozen_body": {"body.0.0.weight": (8, 3, 3, 3), "body.1.0.weight": (12, 8, 3, 3)},
    "weight_standardisation": {"0.weight": (8, 3, 3, 3), "3.weight": (8, 2, 3, 3)},
    "dynamic_convolution": {"kernels": (2, 8, 4, 3, 3), "route.weight": (2, 4)},
    "transformer": {"body.decoder.layers.0.multihead_attn.in_proj_weight": (48, 16), "head.weight": (40, 16)},
    "unregistered_modules": {"start.0.weight": (20, 12), "start.2.weight": (24, 20)},
}  # fmt: skip

INTEGERS: dict[str, dict[str, int]] = {
    "channel_shuffle_by_views": {"groups": 4, "one.0.groups": 4}, "slice_gate": {"n": 4},
    "depthwise_multiplier": {"1.0.groups": 4}, "grouped_transposed": {"1.groups": 4, "3.groups": 12},
    "instance_norm": {"1.num_features": 8}, "grouped_queries_rotary": {"heads": 2, "shared": 1, "size": 8},
    "gpt_conv1d": {"heads": 2, "width": 16, "qkv.width": 48}, "transformer": {"body.d_model": 16},
    "cells": {"hidden": 8, "gru.hidden_size": 8, "lstm.input_size": 8, "lstm.hidden_size": 6},
    "lstm_projected": {"rnn.hidden_size": 8, "rnn.proj_size": 5}, "mha_kdim_vdim": {"attention.num_heads": 2},
}  # fmt: skip


def place(model: nn.Module, name: str) -> Any:
    path, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(path), leaf)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", KEPT)
def test_half_of_the_units_go_and_the_rest_is_proven(name: str):
    model, example = build(f"own:{name}")
    before = {n: t.clone() for n, t in model.state_dict().items()}
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert not plan.skipped
    assert {n: tuple(place(slim, n).shape) for n in KEPT[name]} == KEPT[name]
    assert {n: place(slim, n) for n in INTEGERS.get(name, {})} == INTEGERS.get(name, {})
    outcome = pj.verify(model, slim, plan, example)
    assert outcome.passed, outcome.cause
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    with torch.no_grad():
        shapes = [t.shape for t in output_tensors(call_with(model, example))]
        assert [t.shape for t in output_tensors(call_with(slim, example))] == shapes


def test_what_does_not_learn_still_does_not():
    model, example = build("own:frozen_body")
    slim, _ = pj.prune(model, example, ratio=0.5)
    assert not any(p.requires_grad for p in slim.body.parameters())
    assert all(p.requires_grad for p in slim.head.parameters())


@pytest.mark.parametrize(
    "name", ["channel_shuffle_by_views", "two_streams", "lstm_projected", "einops_attention"]
)
def test_networks_without_data_lose_the_same_shapes(name: str):
    model, example = build(f"own:{name}")
    real, _ = pj.prune(model, example, ratio=0.5, criterion="random")
    bare, plan = pj.prune(copy.deepcopy(model).to("meta"), example, ratio=0.5, criterion="random")
    assert all(p.is_meta for p in bare.parameters())
    assert {n: p.shape for n, p in bare.named_parameters()} == {
        n: p.shape for n, p in real.named_parameters()
    }
    assert not plan.skipped


def effects(model: nn.Module, example: Any, name: str) -> list[tuple[int, int]]:
    """(dim, index) of the slices of a weight, past its first dim, that change an output."""
    weight, found = model.get_parameter(name), []
    with torch.no_grad():
        expected = output_tensors(call_with(model, example))
        own = weight.clone()
        for dim in range(1, weight.dim()):
            for index in range(weight.shape[dim]):
                weight.select(dim, index).normal_()
                outputs = output_tensors(call_with(model, example))
                if not all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True)):
                    found.append((dim, index))
                weight.copy_(own)
    return found


def switched_off(model: nn.Module, group: Any, unit: int) -> nn.Module:
    """The network with everything zeroed that produces a unit: rows of weights, entries of vectors."""
    off = copy.deepcopy(model)
    states = dict(off.named_parameters())
    with torch.no_grad():
        for slot in group.slots:
            if slot.dim == 0 and slot.name in states:
                states[slot.name].index_fill_(0, torch.as_tensor(slot.index[unit]), 0)
    return off


@pytest.mark.parametrize(("name", "group", "weights"), [
    ("channel_shuffle_by_views", "stem.0.weight:0", ("one.0.weight",)),
    ("flip_channels", "0.0.weight:0", ("2.0.weight",)),
    ("slice_gate", "both.0.weight:0", ("head.2.weight",)),
    ("glu_channels", "0.0.weight:0", ("2.0.weight",)),
    ("pixel_shuffle", "1.weight:0", ("3.0.weight",)),
    ("depthwise_multiplier", "0.0.weight:0", ("2.0.weight",)),
    ("dense_block", "layers.1.0.weight:0", ("layers.2.0.weight", "layers.3.0.weight", "head.2.weight")),
    ("hand_written_lstm", "x.weight:0", ("h.weight", "head.weight")),
    ("wavenet", "gates.1.weight:0", ("residuals.1.weight", "skips.1.weight")),
])  # fmt: skip
def test_a_unit_owns_exactly_what_has_no_effect_without_it(name: str, group: str, weights: tuple[str, ...]):
    model, example = build(f"own:{name}")
    found = pj.trace(model, example).group(group)
    for unit in (0, len(found) - 1):
        off = switched_off(model, found, unit)
        for weight in weights:
            owned = {
                (slot.dim, int(i))
                for slot in found.slots
                if slot.name == weight and slot.dim
                for i in slot.index[unit]
            }
            before, after = effects(model, example, weight), effects(off, example, weight)
            assert set(before) - set(after) == owned, (weight, unit)

"""Every registered rule is reached by a small network that is pruned and proven, or listed as not reached yet."""

import functools

import pytest
import torch
from op_networks import ALL_BUILDERS

import penjing as pj
from penjing.core import InternalError
from penjing.structure._rules import RULES
from penjing.structure._rules._contract import EINSUMS
from penjing.structure._rules._registry import rule

aten = torch.ops.aten

# May only shrink: a rule leaves this list when a network of tests/laws reaches it. Most are kernels of other devices,
# of training, or composites that a trace sees in parts.
NOT_REACHED_YET: frozenset[str] = frozenset(
    {
        "aten._batch_norm_no_update",
        "aten._batch_norm_with_update",
        "aten._convolution",
        "aten._fused_rms_norm",
        "aten._native_batch_norm_legit",
        "aten._native_batch_norm_legit_functional",
        "aten._native_batch_norm_legit_no_training",
        "aten._reshape_alias",
        "aten._safe_softmax",
        "aten.addbmm",
        "aten.addmv",
        "aten.allclose",
        "aten.as_strided_",
        "aten.avg_pool1d",
        "aten.bernoulli",
        "aten.bernoulli_",
        "aten.chunk",
        "aten.cudnn_batch_norm",
        "aten.dot",
        "aten.dropout",
        "aten.empty_strided",
        "aten.equal",
        "aten.index_put_",
        "aten.is_nonzero",
        "aten.item",
        "aten.lift_fresh_copy",
        "aten.movedim",
        "aten.multinomial",
        "aten.narrow",
        "aten.native_channel_shuffle",
        "aten.native_dropout",
        "aten.new_empty_strided",
        "aten.normal_",
        "aten.numpy_T",
        "aten.rand",
        "aten.rand_like",
        "aten.randint",
        "aten.randn",
        "aten.randn_like",
        "aten.randperm",
        "aten.reshape",
        "aten.scatter_",
        "aten.t_",
        "aten.tril_indices",
        "aten.triu_indices",
        "aten.uniform_",
        "aten.unsafe_split_with_sizes",
        "aten._conj_physical",
        "aten._embedding_bag",
        "aten._embedding_bag_forward_only",
        "aten._pack_padded_sequence",
        "aten._pad_packed_sequence",
        "aten._trilinear",
        "aten.conj_physical",
        "aten.logspace",
        "aten.view_as_complex_copy",
        "aten.view_as_real_copy",
        "torchvision::deform_conv2d",
        "torchvision::nms",  # tests/unit/structure/test_structure_choices.py, where torchvision is installed
        "torchvision::roi_align",
    }
)


@functools.cache
def reached() -> frozenset[str]:
    found = set()
    for build in ALL_BUILDERS.values():
        case = build(8)
        calls = pj.trace(case.model.eval(), case.example).graph.calls
        found.update(str(call.op.overloadpacket) for call in calls)
    return frozenset(found)


def test_the_list_of_unreached_rules_is_exact():
    unreached = {str(packet) for packet in RULES} - reached()
    assert unreached == NOT_REACHED_YET, (
        sorted(unreached - NOT_REACHED_YET),
        sorted(NOT_REACHED_YET - unreached),
    )


def test_no_small_network_meets_an_unknown_op():
    for name, build in ALL_BUILDERS.items():
        case = build(8)
        assert pj.trace(case.model.eval(), case.example).unknown_ops == (), name


@pytest.mark.parametrize("packet", sorted(EINSUMS, key=str), ids=str)
def test_einsum_strings_fit_the_schema(packet: object):
    terms = EINSUMS[packet].partition("->")[0].split(",")
    schema = getattr(packet, packet.overloads()[0])._schema  # type: ignore[attr-defined]
    tensors = [a for a in schema.arguments if "Tensor" in str(a.type)]
    assert len(terms) == len(tensors)


def test_a_second_rule_for_a_packet_is_refused():
    with pytest.raises(InternalError, match="two rules"):
        rule(aten.cat)(lambda site: [])

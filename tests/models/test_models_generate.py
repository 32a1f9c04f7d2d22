"""A smaller language model goes on writing, with its cache as without: the cache follows what is left."""

import pytest
import torch

import penjing as pj

pytest.importorskip("transformers")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gemma2", "mixtral", "mamba2", "t5"])
def test_a_smaller_language_model_writes_the_same_with_and_without_its_cache(name: str):
    from benchmarks.networks import build

    model, example = build(f"transformers:{name}")
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert not plan.skipped
    given = {key: value for key, value in example.items() if key != "decoder_input_ids"}
    kept, anew = (
        slim.generate(**given, max_new_tokens=4, min_new_tokens=4, do_sample=False, use_cache=cached)
        for cached in (True, False)
    )
    assert torch.equal(kept, anew)


def test_a_router_takes_its_experts_along():
    from benchmarks.networks import build

    model, example = build("transformers:mixtral")
    experts = [g for g in pj.trace(model, example).groups if g.granularity == "expert"]
    assert [len(g) for g in experts] == [4, 4]
    assert all(len({slot.name.rpartition(".")[0] for slot in g.slots}) == 2 for g in experts)

"""Hidden states and attention drawn to a teacher's: slow twins, pruned students, refusals, resume."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import penjing as pj
from penjing.core import UsageError
from penjing.recover import (
    Layers,
    TrainState,
    distil,
    distillation_loss,
    find_layers,
    layer_pairs,
    match,
    recover,
)
from penjing.recover._attention import Attended, attentions, relation_distance, relation_heads
from penjing.recover._loss_streams import hidden_distance
from penjing.recover._positions import at_length, filled

TOKENS, CLASSES = 30, 3


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, eager: bool, post: bool) -> None:
        super().__init__()
        self.heads, self.eager, self.post, self.scale = heads, eager, post, (width // heads) ** -0.5
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = x if self.post else self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        blocked = mask[:, None, None, :].bool()
        if self.eager:
            scores = (q @ k.transpose(-1, -2) * self.scale).masked_fill(~blocked, -1e9)
            mixed = scores.softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=blocked, scale=self.scale)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        x = self.norm1(x) if self.post else x
        x = x + self.down(F.gelu(self.up(x if self.post else self.norm2(x))))
        return self.norm2(x) if self.post else x


class Encoder(nn.Module):
    def __init__(
        self, width: int = 16, heads: int = 4, depth: int = 3, eager: bool = False, post: bool = False
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(TOKENS, width)
        self.layers = nn.ModuleList(Layer(width, heads, eager, post) for _ in range(depth))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids)
        for layer in self.layers:
            x = x if isinstance(layer, nn.Identity) else layer(x, mask)
        weights = mask[..., None].float()
        return self.head((x * weights).sum(1) / weights.sum(1))


class Texts:
    """The class of a text is the sum of its tokens, mod 3: `n` texts of 3 to 8 tokens."""

    def n(self, split: str) -> int:
        return 48

    def batches(self, split: str, batch_size: int, *, seed: int = 0, epoch: int = 0, **_: Any) -> Any:
        draw = torch.Generator().manual_seed(epoch + (7 if split == "train" else 0))
        for start in range(0, 48, batch_size):
            rows = min(batch_size, 48 - start)
            yield texts(rows, draw)


def texts(rows: int, draw: torch.Generator, length: int = 8) -> Any:
    ids = torch.randint(1, TOKENS, (rows, length), generator=draw)
    lengths = torch.randint(3, length + 1, (rows,), generator=draw)
    mask = (torch.arange(length) < lengths[:, None]).long()
    return {"ids": ids * mask, "mask": mask}, (ids * mask).sum(1) % 3


class Task:
    name = "sums"

    def inputs(self, batch: Any) -> Any:
        return batch[0]

    def targets(self, batch: Any) -> Tensor:
        return batch[1]

    def logits(self, outputs: Any) -> Tensor:
        return outputs

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        return F.cross_entropy(outputs, batch[1])

    def metric(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        return {"accuracy": float((logits.argmax(-1) == targets).float().mean())}


def encoder(seed: int = 0, **options: Any) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(**options).eval()


def batch(rows: int = 5) -> Any:
    return texts(rows, torch.Generator().manual_seed(3))


def stack(depth: int, *, slots: int | None = None, places: tuple[int, ...] | None = None) -> Layers:
    places = places or tuple(range(depth))
    names = tuple(f"layers.{i}" for i in places)
    return Layers(names=names, outputs=names, places=places, slots=slots or depth, widths=(8,) * depth)


@pytest.mark.parametrize(
    ("student", "teacher", "how", "pairs"),
    [
        (stack(4), stack(12), "uniform", ((0, 2), (1, 5), (2, 8), (3, 11))),  # TinyBERT: 3, 6, 9, 12
        (stack(3), stack(3), "uniform", ((0, 0), (1, 1), (2, 2))),
        (stack(2), stack(5), "uniform", ((0, 2), (1, 4))),
        (stack(1), stack(6), "uniform", ((0, 5),)),
        (stack(6), stack(3), "uniform", ((0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2))),
        (stack(2, slots=4, places=(0, 2)), stack(4), "uniform", ((0, 0), (1, 2))),
        (stack(2), stack(6), "last", ((1, 5),)),
        (stack(2), stack(6), [(0, 1), (-1, "layers.4")], ((0, 1), (1, 4))),
    ],
)
def test_layers_are_mapped(student, teacher, how, pairs):
    assert layer_pairs(student, teacher, how) == pairs


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("first", "one of uniform, middle, last or pairs"),
        ([(0, 9)], "teacher has no layer 9"),
        ([("a", 0)], "'a'"),
    ],
)
def test_a_map_that_cannot_be_is_refused(how, message):
    with pytest.raises(UsageError, match=message):
        layer_pairs(stack(2), stack(3), how)


def test_layers_are_found_by_running_and_dropped_ones_keep_their_places():
    model = encoder(depth=4)
    model.layers[1] = nn.Identity()
    layers = find_layers(model, batch()[0])
    assert layers is not None
    assert layers.names == ("layers.0", "layers.2", "layers.3")
    assert (layers.places, layers.slots, layers.widths, layers.time_first) == ((0, 2, 3), 4, (16,) * 3, False)


class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.transpose(0, 1)).mean(0)


def test_pytorchs_own_encoder_is_found_and_its_order_of_dims():
    layers = find_layers(TimeFirst(), torch.randn(2, 5, 8))
    assert layers is not None
    assert layers.names == ("body.layers.0", "body.layers.1")
    assert layers.time_first


def test_layers_in_another_order_of_dims_are_compared_as_the_same():
    torch.manual_seed(0)
    student, teacher = TimeFirst().eval(), TimeFirst().eval()
    x, seen = torch.randn(2, 5, 8), []
    matching = match(student, teacher, Task(), (x, torch.zeros(2)), hidden=1.0)
    for model, taught in ((student, False), (teacher, True)):
        with matching.watching(model, x, teacher=taught) as found:
            model(x)
        seen.append(found)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    twins = []
    for own in (f"body.layers.{i}" for i in range(2)):
        one, other = (found.hidden[own].transpose(0, 1) for found in seen)
        twins.append(hidden_distance(one, other, mask))
    assert len(matching.pairs) == 2
    found = [hidden_distance(s.mapped, s.aim, s.keep) for s in matching._streams(*seen, mask)]
    torch.testing.assert_close(torch.stack(found), torch.stack(twins))


def test_hidden_distance_equals_its_slow_twin():
    torch.manual_seed(0)
    own, other = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    keep = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]).bool()
    apart = size = 0.0
    for b in range(3):
        for t in range(5):
            if keep[b, t]:
                for c in range(4):
                    apart += (own[b, t, c].item() - other[b, t, c].item()) ** 2
                    size += other[b, t, c].item() ** 2
    assert hidden_distance(own, other, keep).item() == pytest.approx(apart / size, rel=1e-5)
    assert hidden_distance(other, other, keep).item() == 0.0
    assert hidden_distance(torch.zeros_like(other), other, keep).item() == pytest.approx(1.0)
    noise = own + 100 * (~keep)[..., None]
    assert hidden_distance(noise, other, keep).item() == hidden_distance(own, other, keep).item()


def attended(heads: int, width: int, seed: int) -> Attended:
    torch.manual_seed(seed)
    return Attended(*(torch.randn(2, heads, 4, width) for _ in range(3)))


def test_relation_distance_equals_its_slow_twin():
    own, other = attended(2, 6, 0), attended(4, 4, 1)
    keep = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    heads = 4  # joined widths 12 and 16: the largest common divisor, at most the teacher's 4
    assert relation_heads(own.query, other.query) == heads
    total = []
    for s, t in zip(own, other, strict=True):
        found = []
        for b in range(2):
            places = [i for i in range(4) if keep[b, i]]
            for a in range(heads):
                vectors = [
                    torch.cat([x[b, h] for h in range(x.shape[1])], -1).chunk(heads, -1)[a][places]
                    for x in (s, t)
                ]
                for i in range(len(places)):
                    p, q = (
                        torch.tensor(
                            [float(v[i] @ v[j]) / math.sqrt(v.shape[-1]) for j in range(len(places))]
                        )
                        .double()
                        .softmax(0)
                        for v in reversed(vectors)
                    )
                    found.append(float((p * (p / q).log()).sum()))
        total.append(sum(found) / len(found))
    assert relation_distance(own, other, keep).item() == pytest.approx(sum(total) / 3, rel=1e-5)
    assert relation_distance(other, other, keep).item() == pytest.approx(0.0, abs=1e-7)


def test_relations_take_gradients_past_masked_keys():
    own, other = attended(2, 4, 0), attended(2, 4, 1)
    own.query.requires_grad_()
    keep = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]]).bool()
    relation_distance(own, other, keep).backward()
    assert own.query.grad is not None
    assert bool(own.query.grad.isfinite().all())
    assert float(own.query.grad[:, :, 2:].abs().sum()) == 0.0


def test_written_out_attention_is_seen_like_the_fused_one():
    fused, eager = encoder(), encoder(eager=True)
    inputs, found = batch()[0], []
    for model in (fused, eager):
        with attentions(model, 5) as seen:
            model(**inputs)
        found.append(seen)
    assert len(found[0]) == len(found[1]) == 3
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.shape == (5, 4, 8, 4)
            torch.testing.assert_close(a, b)  # fp32: the two kernels round differently from layer 2 on


@pytest.mark.parametrize("way", ["multihead", "bmm", "einsum"])
def test_other_ways_to_write_attention_are_seen(way):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4) for _ in range(3))
    module = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    x = torch.randn(2, 5, 12)
    with attentions(module, 2) as seen:
        if way == "multihead":
            module(x, x, x, need_weights=False)
            projected = F.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)
            q, k, v = (t.unflatten(-1, (3, 4)).transpose(1, 2) for t in projected)
        elif way == "bmm":
            scores = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2)).view(2, 3, 5, 5)
            torch.bmm(F.softmax(scores / 2, dim=-1).view(6, 5, 5), v.flatten(0, 1))
        else:
            weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(dim=-1)
            torch.einsum("bhij,bhjd->bhid", weights, v)
    assert len(seen) == 1
    for mine, theirs in zip(seen[0], (q, k, v), strict=True):
        torch.testing.assert_close(mine, theirs)  # fp32: three projections or one
    assert type(module) is nn.MultiheadAttention


def test_attention_to_something_else_is_not_taken():
    q, k = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4)
    with attentions(nn.Identity(), 2) as seen:
        F.scaled_dot_product_attention(q, k, k)
    assert seen == []


def test_masks_are_found_among_inputs_and_brought_to_a_layers_length():
    inputs, targets = batch(4)
    mask = filled(Task(), (inputs, targets), inputs, torch.zeros(4, 3))
    assert mask is not None
    assert torch.equal(mask, inputs["mask"].bool())
    types = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]])
    assert filled(Task(), None, {"types": types}, torch.zeros(2, 3)) is None
    assert filled(Task(), None, torch.ones(2, 4), torch.zeros(2, 3)) is None
    left = {"types": torch.tensor([[0, 1], [0, 1]]), "mask": torch.tensor([[1, 1], [1, 0]])}
    assert filled(Task(), None, left, torch.zeros(2, 3)).tolist() == [[True, True], [True, False]]
    del left["mask"]
    assert filled(Task(), None, left, torch.zeros(2, 3)).tolist() == [[False, True], [False, True]]
    samples = (torch.arange(100) < torch.tensor([[100], [41]])).long()
    frames = at_length(samples.bool(), 2, 10, samples.device)
    assert frames.sum(1).tolist() == [10, 5]
    assert bool(at_length(None, 2, 3, samples.device).all())


@pytest.mark.parametrize("post", [False, True])
def test_a_pruned_student_is_compared_with_the_channels_it_kept(post):
    teacher = encoder(post=post)
    inputs = batch()[0]
    slim, plan = pj.prune(teacher, inputs, ratio=0.5, granularity=("neuron", "head", "embed"))
    matching = match(slim, teacher, Task(), batch(), hidden=1.0, plan=plan)
    removed = set(plan.removed["words.weight"][1])
    assert len(matching.pairs) == 3
    for pair in matching.pairs:
        assert pair.how == "kept"
        assert pair.kept is not None
        assert set(range(16)) - set(pair.kept.tolist()) == removed
    assert not list(matching.maps.parameters())


def test_a_teacher_cut_without_loss_is_already_matched():
    teacher = encoder()
    with (
        torch.no_grad()
    ):  # channels 0 to 3 of the stream carry nothing, and no norm spans what is left otherwise
        for name in ("q", "k", "v", "up"):
            for layer in teacher.layers:
                getattr(layer, name).weight.zero_()
    inputs = batch()[0]
    slim, plan = pj.prune(teacher, inputs, ratio=0.25, granularity=("embed",))
    matching = match(slim, teacher, Task(), batch(), hidden=1.0, plan=plan)
    value = distillation_loss(slim, teacher, Task(), weight=0.0, matching=matching)(batch(), 0, 1)
    own = Task().loss(slim(**inputs), batch())
    assert value.item() == pytest.approx(own.item(), abs=1e-6)


def test_without_a_plan_other_widths_are_mapped_and_equal_ones_compared():
    teacher = encoder()
    assert {pair.how for pair in match(encoder(1), teacher, Task(), batch(), hidden=1.0).pairs} == {"same"}
    matching = match(encoder(1, width=8, depth=2), teacher, Task(), batch(), hidden=1.0, seed=5)
    assert [pair.how for pair in matching.pairs] == ["mapped", "mapped"]
    assert [tuple(p.shape) for p in matching.maps.parameters()] == [(16, 8), (16,), (16, 8), (16,)]
    again = match(encoder(1, width=8, depth=2), teacher, Task(), batch(), hidden=1.0, seed=5)
    assert all(
        torch.equal(a, b) for a, b in zip(matching.maps.parameters(), again.maps.parameters(), strict=True)
    )


def test_the_terms_are_what_is_added_to_the_loss():
    student, teacher = encoder(1, heads=2), encoder()
    plain = distillation_loss(student, teacher, Task())(batch(), 0, 1).item()
    matching = match(student, teacher, Task(), batch(), hidden=0.5, attention=2.0)
    value = distillation_loss(student, teacher, Task(), matching=matching)(batch(), 0, 1).item()
    seen = []
    for model in (student, teacher):
        hidden: dict[int, Tensor] = {}
        for i, layer in enumerate(model.layers):
            layer.register_forward_hook(lambda _, __, out, i=i, hidden=hidden: hidden.__setitem__(i, out))
        with attentions(model, 5) as found:
            model(**batch()[0])
        seen.append((hidden, found[-1]))
    keep = batch()[0]["mask"].bool()
    (own, near), (other, far) = seen
    apart = sum(hidden_distance(own[i], other[i], keep).item() for i in range(3)) / 3
    related = relation_distance(near, far, keep).item()
    assert value == pytest.approx(plain + 0.5 * apart + 2.0 * related, rel=1e-5)


def test_a_loss_of_ones_own_gets_the_streams_of_matched_layers():
    seen = []

    def distance(signals):
        seen.append(signals)
        return signals.student.sum() * 0.0

    student, teacher = encoder(1), encoder()
    matching = match(student, teacher, Task(), batch(), hidden=1.0, hidden_layers="last")
    distillation_loss(student, teacher, Task(), loss=distance, matching=matching)(batch(), 0, 1)
    distillation_loss(student, teacher, Task(), loss=distance)(batch(), 0, 1)
    assert [[stream.student.shape for stream in s.streams] for s in seen] == [[(5, 8, 16)], []]
    assert seen[0].streams[0].student.requires_grad
    assert not seen[0].streams[0].teacher.requires_grad
    assert torch.equal(seen[0].streams[0].keep, batch()[0]["mask"].bool())


def test_weight_zero_watches_nothing(monkeypatch):
    from penjing.recover import _layers, _matching

    monkeypatch.setattr(_layers, "find_layers", None)
    monkeypatch.setattr(_matching, "find_layers", None)
    student = encoder(1)
    hooks = []
    student.layers[0].register_forward_pre_hook(lambda m, _: hooks.append(len(m._forward_hooks)))
    distil(student, encoder(), Task(), Texts(), epochs=1, batch_size=16)
    assert set(hooks) == {0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": -1.0}, "at least 0"),
        (
            {"attention": 1.0, "attention_layer": 7},
            "self-attention number 7 of the student, in which 3 were seen",
        ),
        ({"hidden": 1.0, "hidden_layers": "first"}, "one of uniform, middle, last"),
    ],
)
def test_what_cannot_be_matched_says_so(options, message):
    with pytest.raises(UsageError, match=message):
        distil(encoder(1), encoder(), Task(), Texts(), epochs=1, batch_size=16, **options)


def test_networks_without_layers_and_steps_without_a_teacher_are_refused():
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(TOKENS, 4), nn.Linear(4, CLASSES)

        def forward(self, ids, mask):
            return self.head(self.words(ids).mean(1))

    with pytest.raises(UsageError, match="the student has none"):
        distil(Flat(), encoder(), Task(), Texts(), epochs=1, batch_size=16, hidden=1.0)
    with pytest.raises(UsageError, match="draw the student to a teacher"):
        recover(encoder(), None, Task(), Texts(), epochs=1, batch_size=16, attention=1.0)


def test_other_numbers_of_positions_are_refused():
    class Halved(Encoder):
        def forward(self, ids, mask):
            return super().forward(ids[:, ::2], mask[:, ::2])

    torch.manual_seed(0)
    with pytest.raises(UsageError, match="frame rates or tokens differ"):
        match(Halved().eval(), encoder(), Task(), batch(), hidden=1.0)


OPTIONS = {"epochs": 3, "batch_size": 16, "lr": 3e-3, "hidden": 1.0, "attention": 1.0}


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_resuming_is_exact_maps_and_all(width, ema):
    states, whole, teacher = [], encoder(1, width=width), encoder()
    options = OPTIONS | {"ema": ema}
    fit = distil(whole, teacher, Task(), Texts(), checkpoint=states.append, **options)
    assert any(name.startswith("helper/") for name in states[0].extra) == (width == 8)
    for state in states:
        resumed = encoder(1, width=width)
        stored = TrainState.from_parts(state.to_tensors(), state.to_json())
        again = distil(resumed, teacher, Task(), Texts(), resume=stored, **options)
        assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))
        assert again.selection == fit.selection


def test_the_maps_learn_along():
    states = []
    distil(encoder(1, width=8), encoder(), Task(), Texts(), checkpoint=states.append, **OPTIONS)
    first, last = states[0].extra, states[-1].extra
    assert first.keys() == last.keys()
    assert not any(torch.equal(first[name], last[name]) for name in first)


def test_resuming_with_other_weights_is_refused():
    states = []
    distil(encoder(1), encoder(), Task(), Texts(), checkpoint=states.append, **OPTIONS)
    with pytest.raises(UsageError, match=r"hidden was 1\.0 and is now 0\.5"):
        distil(encoder(1), encoder(), Task(), Texts(), resume=states[0], **(OPTIONS | {"hidden": 0.5}))


def test_matching_draws_the_student_nearer_than_answers_alone():
    teacher = encoder()
    keep = batch(32)[0]["mask"].bool()

    def apart(model: nn.Module) -> tuple[float, float]:
        seen = []
        for network in (model, teacher):
            with torch.no_grad(), attentions(network, 32) as found:
                stream = []
                hook = network.layers[-1].register_forward_hook(lambda _, __, out, s=stream: s.append(out))
                network(**batch(32)[0])
                hook.remove()
            seen.append((stream[0], found[-1]))
        (own, near), (other, far) = seen
        return hidden_distance(own, other, keep).item(), relation_distance(near, far, keep).item()

    plain, drawn = encoder(1, depth=2), encoder(1, depth=2)
    options = OPTIONS | {"epochs": 10}
    distil(plain, teacher, Task(), Texts(), **(options | {"hidden": 0.0, "attention": 0.0}))
    distil(drawn, teacher, Task(), Texts(), **options)
    assert apart(drawn)[0] < 0.7 * apart(plain)[0]
    assert apart(drawn)[1] < 0.7 * apart(plain)[1]


def test_a_student_less_one_layer_matches_the_layers_of_the_same_names():
    teacher = encoder(depth=3)
    student = copy.deepcopy(teacher)
    student.layers[1] = nn.Identity()
    matching = match(student, teacher, Task(), batch(), hidden=1.0)
    assert [(pair.student, pair.teacher) for pair in matching.pairs] == [
        ("layers.0", "layers.0"),
        ("layers.2", "layers.2"),
    ]

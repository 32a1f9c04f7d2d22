import numpy as np
import pytest
import torch

from penjing.core import UsageError
from penjing.tasks import POLICIES, image_data
from penjing.tasks._augment import augment, light, standard, uniform

torch.set_num_threads(1)

SIZE, MEAN, STD = (3, 24, 24), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def data():
    return image_data("builtin:digits", size=SIZE, mean=MEAN, std=STD)


@pytest.mark.parametrize("policy", [light, standard])
@pytest.mark.parametrize(("channels", "side"), [(1, 17), (3, 32)])
def test_a_view_does_not_depend_on_the_rest_of_the_batch(policy, channels: int, side: int) -> None:
    images = torch.rand(33, channels, side, side + 5)
    together = augment(images, policy, seed=4, epoch=2, indices=range(33))
    alone = torch.cat([augment(images[i : i + 1], policy, seed=4, epoch=2, indices=[i]) for i in range(33)])
    some = torch.tensor([30, 2, 7, 19, 4])
    mixed = augment(images[some], policy, seed=4, epoch=2, indices=some.tolist())
    assert torch.equal(together, alone)
    assert torch.equal(together[some], mixed)


@pytest.mark.parametrize("policy", ["light", "standard"])
def test_batches_give_the_same_view_whatever_their_size_and_order(data, policy: str) -> None:
    def views(**options) -> dict[int, torch.Tensor]:
        order = data.batches("selection", options.pop("batch_size"), augment=policy, **options)
        return {hash(x.numpy().tobytes()) for images, _ in order for x in images}

    base = views(batch_size=64, seed=1, epoch=3)
    assert len(base) == 270
    assert base == views(batch_size=7, seed=1, epoch=3, shuffle=True)
    assert not base & views(batch_size=64, seed=1, epoch=4)
    assert not base & views(batch_size=64, seed=2, epoch=3)


def test_uniform_is_uniform_and_a_function_of_all_it_is_given() -> None:
    draws = uniform(0, 0, range(4000), 5)
    assert draws.shape == (4000, 5)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert np.abs(draws.mean(0) - 0.5).max() < 0.02  # 4.4 standard errors of 0.0046
    assert np.abs(np.corrcoef(draws.T) - np.eye(5)).max() < 0.07
    assert np.array_equal(uniform(0, 0, [17], 5)[0], draws[17])
    for seed, epoch in ((1, 0), (0, 1), (-1, 0)):
        assert not np.isclose(uniform(seed, epoch, range(9), 5), draws[:9]).any()


def test_the_identity_leaves_pictures_alone() -> None:
    images = torch.rand(2, 3, 9, 14)
    same = augment(
        images, lambda draws, aspect: (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), seed=0, epoch=0, indices=[0, 1]
    )
    torch.testing.assert_close(same, images, atol=2e-6, rtol=0)  # fp32 grid coordinates


def test_light_turns_without_shear_in_pictures_that_are_not_square() -> None:
    aspect = 2.0
    ax, bx, _, ay, by, _ = light([1.0, 0.5, 0.5, 0.5, 0.0], aspect)
    turn = np.array([[ax, bx * aspect], [ay / aspect, by]])
    assert np.allclose(turn @ turn.T, np.eye(2))
    assert np.degrees(np.arccos(turn[0, 0])) == pytest.approx(10.0)


def test_light_never_mirrors_and_standard_does_half_the_time() -> None:
    rows = uniform(0, 0, range(1000), 5).tolist()
    assert all(light(row, 1.0)[0] > 0 for row in rows)
    mirrored = sum(standard(row, 1.0)[0] < 0 for row in rows)
    assert 430 < mirrored < 570


def test_standard_crops_stay_inside_the_picture() -> None:
    for row in uniform(3, 1, range(500), 5).tolist():
        width, _, centre_x, _, height, centre_y = standard(row, 1.0)
        assert abs(width) + abs(centre_x) <= 1.0 + 1e-12
        assert height + abs(centre_y) <= 1.0 + 1e-12
        assert 0.3 <= abs(width) * height <= 1.0


def test_policies_are_named(data) -> None:
    assert set(POLICIES) == {"none", "light", "standard"}
    assert data.contents.augmentation == "light"
    plain, none, own, named = (
        next(iter(data.batches("train", 8, augment=choice)))[0] for choice in (False, "none", True, "light")
    )
    assert torch.equal(plain, none)
    assert torch.equal(own, named)
    assert not torch.equal(plain, own)
    with pytest.raises(UsageError, match="choose one of none, light, standard"):
        data.batches("train", 8, augment="heavy")

"""Hand-written networks over images: the small things that break channel pruning."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_IMAGE = (2, 3, 16, 16)


def _conv(a: int, b: int, k: int = 3, **options: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(a, b, k, padding=k // 2, bias=False, **options), nn.BatchNorm2d(b), nn.ReLU()
    )


def _head(c: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class UNet(nn.Module):
    """Contracting and expanding path with skips joined by `cat`."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([_conv(3, 8), _conv(8, 16), _conv(16, 32)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.merge = nn.ModuleList([_conv(32, 16), _conv(16, 8)])
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for position, block in enumerate(self.down):
            x = block(x if position == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1]), strict=True):
            x = merge(torch.cat([up(x), skip], dim=1))
        return self.out(x)


def _generator() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 32 * 4 * 4),
        nn.Unflatten(1, (32, 4, 4)),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1),
        nn.Tanh(),
    )


def _discriminator() -> nn.Module:
    sn = torch.nn.utils.parametrizations.spectral_norm
    return nn.Sequential(
        sn(nn.Conv2d(3, 16, 4, 2, 1)),
        nn.LeakyReLU(0.2),
        sn(nn.Conv2d(16, 32, 4, 2, 1)),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        sn(nn.Linear(32 * 16, 1)),
    )


class Shuffle(nn.Module):
    """Channel shuffle by views, as in ShuffleNet, between grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 4
        self.stem = _conv(3, 24)
        self.one, self.two = _conv(24, 24, 1, groups=4), _conv(24, 24, 1, groups=4)
        self.head = _head(24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(self.stem(x))
        b, c, h, w = x.shape
        x = x.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(self.two(x))


def _rearranged(function: Callable[[torch.Tensor], torch.Tensor], out: int = 16) -> nn.Module:
    return nn.Sequential(_conv(3, 16), Lambda(function), _conv(out, 16), _head(16))


class SliceGate(nn.Module):
    """A slice of one stream gates another: `y[:, :n]`."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 8
        self.both, self.value = _conv(3, 16), _conv(3, 8)
        self.head = _head(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, v = self.both(x), self.value(x)
        return self.head(torch.cat([v * torch.sigmoid(y[:, : self.n]), y[:, self.n :]], 1))


class TwoGroupCounts(nn.Module):
    """One stream read by convolutions of 2, 3 and 4 groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 24)
        self.a, self.b, self.c = (_conv(24, 24, groups=g) for g in (2, 3, 4))
        self.head = _head(24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.a(x) + self.b(x) + self.c(x))


def _depthwise_multiplier() -> nn.Module:
    return nn.Sequential(_conv(3, 8), _conv(8, 24, groups=8), _conv(24, 16, 1), _head(16))


def _grouped_transposed() -> nn.Module:
    return nn.Sequential(
        _conv(3, 16),
        nn.ConvTranspose2d(16, 24, 4, 2, 1, groups=4),
        nn.ReLU(),
        nn.ConvTranspose2d(24, 24, 3, 1, 1, groups=24),
        _conv(24, 8),
        _head(8),
    )


def _pixel_shuffle() -> nn.Module:
    return nn.Sequential(_conv(3, 16), nn.Conv2d(16, 8 * 4, 3, padding=1), nn.PixelShuffle(2), _conv(8, 3))


def _pixel_unshuffle() -> nn.Module:
    return nn.Sequential(_conv(3, 8), nn.PixelUnshuffle(2), _conv(32, 16), _head(16))


def _instance_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.InstanceNorm2d(16, affine=True, track_running_stats=True),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.InstanceNorm2d(16),
        nn.ReLU(),
        _head(16),
    )


def _layer_norm_chw() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.LayerNorm((16, 16, 16)),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.LayerNorm((16, 16, 16), elementwise_affine=False),
        _head(16),
    )


def _spatial_softmax() -> nn.Module:
    return nn.Sequential(_conv(3, 16), nn.Softmax2d(), _conv(16, 16), _head(16))


def _fft_channels() -> nn.Module:
    mixed = Lambda(lambda x: torch.fft.fft(x, dim=1).real)
    return nn.Sequential(_conv(3, 16), mixed, _conv(16, 24), _conv(24, 16), _head(16))


class FourierUnit(nn.Module):
    """Fast Fourier convolution: spectra over pixels, real and imaginary parts as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = _conv(3, 16), _conv(32, 32, 1), _head(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        spectrum = torch.fft.rfft2(x, norm="ortho")
        mixed = self.mix(torch.cat([spectrum.real, spectrum.imag], 1))
        real, imaginary = mixed.chunk(2, 1)
        back = torch.fft.irfft2(torch.complex(real, imaginary), s=x.shape[-2:], norm="ortho")
        return self.head(x + back)


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = _conv(3, 16), _head(16)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x * self.gate(x))


class SpatialTransformer(nn.Module):
    """Sampling at learned places with `grid_sample`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.offset, self.head = _conv(3, 16), nn.Conv2d(16, 2, 3, padding=1), _head(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        where = torch.eye(2, 3, device=x.device).expand(x.shape[0], -1, -1)
        grid = F.affine_grid(where, list(x.shape), align_corners=False)
        grid = grid + 0.1 * torch.tanh(self.offset(x)).permute(0, 2, 3, 1)
        return self.head(F.grid_sample(x, grid, align_corners=False))


class StandardisedConv(nn.Conv2d):
    """Weight standardisation (Qiao et al., 2019)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        weight = weight / (weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def _weight_standardisation() -> nn.Module:
    return nn.Sequential(
        StandardisedConv(3, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        StandardisedConv(16, 16, 3, padding=1, groups=4),
        nn.GroupNorm(4, 16),
        _head(16),
    )


class DynamicConv(nn.Module):
    """A per-image mixture of kernels, run as one grouped convolution over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = _conv(3, 8), _head(16)
        self.kernels = nn.Parameter(torch.randn(4, 16, 8, 3, 3) / 9)
        self.route = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        b, c, h, w = x.shape
        mix = self.route(x.mean((2, 3))).softmax(-1)
        weight = torch.einsum("bk,koihw->boihw", mix, self.kernels)
        out = F.conv2d(x.reshape(1, b * c, h, w), weight.flatten(0, 1), padding=1, groups=b)
        return self.head(out.view(b, -1, h, w))


class Siamese(nn.Module):
    """Two images, one encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(_conv(3, 16), _conv(16, 32), _head(32))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return F.cosine_similarity(self.encoder(left), self.encoder(right))


class DenseBlock(nn.Module):
    """Everything before is read by everything after, in a Python loop."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_conv(3 + 6 * i, 6) for i in range(4))
        self.head = _head(27)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = [x]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, 1)))
        return self.head(torch.cat(seen, 1))


class Autoencoder(nn.Module):
    """A variational autoencoder in eval mode: the mean is decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(_conv(3, 16), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 64, 32))
        self.mean, self.log_variance = nn.Linear(32, 8), nn.Linear(32, 8)
        self.decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3 * 256))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = F.relu(self.encoder(x))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        code = mean + noise * torch.exp(0.5 * log_variance)
        return self.decoder(code).view_as(x), mean, log_variance


class BlurPool(nn.Module):
    """A fixed blur as a buffer repeated over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = _conv(3, 16), _head(16)
        self.register_buffer("kernel", torch.ones(1, 1, 3, 3) / 9 + torch.randn(1, 1, 3, 3) / 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        kernel = self.kernel.repeat(x.shape[1], 1, 1, 1)
        return self.head(F.conv2d(x, kernel, padding=1, groups=x.shape[1]))


class Frozen(nn.Module):
    """A body that does not learn, run under `no_grad`, and a head that does."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(_conv(3, 16), _conv(16, 24)).requires_grad_(False), _head(24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.body(x)
        return self.head(x)


def _images(make: Callable[[], nn.Module]) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (make(), torch.randn(_IMAGE))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "u_net": _images(UNet),
    "gan_generator": lambda: (_generator(), torch.randn(2, 20)),
    "dcgan_discriminator_spectral_norm": _images(_discriminator),
    "channel_shuffle_by_views": _images(Shuffle),
    "flip_channels": _images(lambda: _rearranged(lambda x: x + x.flip(1))),
    "roll_channels": _images(lambda: _rearranged(lambda x: x + x.roll(3, 1))),
    "roll_pixels": _images(lambda: _rearranged(lambda x: x + x.roll((1, 2), (2, 3)))),
    "roll_flat": _images(lambda: _rearranged(lambda x: x + x.roll(1))),
    "slice_gate": _images(SliceGate),
    "glu_channels": _images(lambda: _rearranged(lambda x: F.glu(x, 1), 8)),
    "maxout": _images(lambda: _rearranged(lambda x: x.unflatten(1, (8, 2)).amax(2), 8)),
    "two_group_counts": _images(TwoGroupCounts),
    "depthwise_multiplier": _images(_depthwise_multiplier),
    "grouped_transposed": _images(_grouped_transposed),
    "pixel_shuffle": _images(_pixel_shuffle),
    "pixel_unshuffle": _images(_pixel_unshuffle),
    "instance_norm": _images(_instance_norm),
    "layer_norm_chw": _images(_layer_norm_chw),
    "softmax_channels": _images(_spatial_softmax),
    "fft_channels": _images(_fft_channels),
    "fourier_unit": _images(FourierUnit),
    "squeeze_excite": _images(SqueezeExcite),
    "grid_sample": _images(SpatialTransformer),
    "weight_standardisation": _images(_weight_standardisation),
    "dynamic_convolution": _images(DynamicConv),
    "siamese": lambda: (Siamese(), (torch.randn(_IMAGE), torch.randn(_IMAGE))),
    "dense_block": _images(DenseBlock),
    "vae": _images(Autoencoder),
    "blur_pool": _images(BlurPool),
    "frozen_body": _images(Frozen),
}

"""A network with something for every kind of adjustment, for 16 pixels in one channel."""

from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.last = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.last(self.first(x).relu())).relu()


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.SiLU())
        self.pool = nn.MaxPool2d(2)
        self.a, self.b = Residual(16), Residual(16)
        self.pair = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 1))
        self.side = nn.Conv2d(16, 16, 1)
        self.mix = Attention(16, 2)
        self.norm = nn.LayerNorm(16)
        self.gap, self.flat = nn.AdaptiveAvgPool2d(2), nn.Flatten()
        self.wide, self.act, self.fc = nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pair(self.b(self.a(self.pool(self.stem(x)))))
        x = x + self.side(x)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.mix(self.norm(tokens))
        x = tokens.transpose(1, 2).reshape(x.shape)
        return self.fc(self.act(self.wide(self.flat(self.gap(x)))))


def adjustable() -> nn.Module:
    return Net()

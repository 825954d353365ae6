"""MobileNetV3-large at width 0.4 in PyTorch, from the table of its paper; random weights."""

import torch
from torch import nn
from torch.nn import functional

# Kernel, expanded channels, channels, squeeze-excitation, hard swish, stride.
TABLE = [
    (3, 8, 8, False, False, 1),
    (3, 24, 16, False, False, 2),
    (3, 32, 16, False, False, 1),
    (5, 32, 16, True, False, 2),
    (5, 48, 16, True, False, 1),
    (5, 48, 16, True, False, 1),
    (3, 96, 32, False, True, 2),
    (3, 80, 32, False, True, 1),
    (3, 72, 32, False, True, 1),
    (3, 72, 32, False, True, 1),
    (3, 192, 48, True, True, 1),
    (3, 272, 48, True, True, 1),
    (5, 272, 64, True, True, 2),
    (5, 384, 64, True, True, 1),
    (5, 384, 64, True, True, 1),
]


def convolution(c_in, c_out, kernel, stride=1, groups=1, activation=nn.Identity):
    padding = (kernel - 1) // 2
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(c_out, eps=1e-3),
        activation(),
    )


class SqueezeExcitation(nn.Module):
    def __init__(self, channels):
        super().__init__()
        squeezed = max(8, (channels // 4 + 4) // 8 * 8)
        layer = nn.Module()
        layer.fc1, layer.fc2 = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)
        self.conc_se_layers = nn.ModuleList([layer])

    def forward(self, x):
        [layer] = self.conc_se_layers
        scale = torch.sigmoid(layer.fc2(torch.relu(layer.fc1(x.mean(dim=(2, 3))))))
        return x * scale[:, :, None, None]


class InvertedResidual(nn.Module):
    def __init__(self, c_in, kernel, expanded, c_out, squeezes, is_hard, stride):
        super().__init__()
        activation = nn.Hardswish if is_hard else nn.ReLU
        layers = [] if expanded == c_in else [convolution(c_in, expanded, 1, activation=activation)]
        layers.append(convolution(expanded, expanded, kernel, stride, expanded, activation))
        layers += [SqueezeExcitation(expanded)] if squeezes else []
        layers.append(convolution(expanded, c_out, 1))
        self.block = nn.Sequential(*layers)
        self.adds = stride == 1 and c_in == c_out

    def forward(self, x):
        return x + self.block(x) if self.adds else self.block(x)


class MobileNet(nn.Module):
    """Maps log_mel [b, 1, f, t] to logits [b, 527]."""

    def __init__(self):
        super().__init__()
        layers, channels = [convolution(1, 8, 3, stride=2, activation=nn.Hardswish)], 8
        for kernel, expanded, c_out, *others in TABLE:
            layers.append(InvertedResidual(channels, kernel, expanded, c_out, *others))
            channels = c_out
        layers.append(convolution(channels, 384, 1, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(384, 512),
            nn.Hardswish(),
            nn.Dropout(),
            nn.Linear(512, 527),
        )

    def forward(self, x):
        return self.classifier(self.features(x))


@torch.no_grad()
def random_mobilenet(seed=0):
    """A network in evaluation mode with norms that fit noise, so that no layer saturates."""
    torch.manual_seed(seed)
    model = MobileNet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.momentum = 1.0
    model.classifier[-1].weight *= 3.0
    levels = torch.linspace(0.01, 0.5, 64_000)
    model(torch.cat([log_mel(levels * torch.randn(64_000)) for _ in range(2)]))
    return model.eval()


def log_mel(sound):
    """The spectrogram [1, 1, 128, t] of mono samples [s] at 32 kHz."""
    emphasised = functional.conv1d(
        torch.as_tensor(sound)[None, None], torch.tensor([[[-0.97, 1.0]]])
    )
    window = torch.hann_window(800, periodic=False)
    spectrum = torch.stft(
        emphasised[0], 1024, 320, 800, window, center=True, pad_mode="reflect", return_complex=True
    )
    mel = kaldi_bands() @ spectrum.abs().square()
    return ((torch.log(mel + 1e-5) + 4.5) / 5)[:, None]


def kaldi_bands():
    """The weights [128, 513] of triangles between 0 and 15 kHz, each between its neighbours."""
    to_mel = lambda hertz: 1127.0 * torch.log1p(hertz / 700.0)  # noqa: E731
    low, high = to_mel(torch.tensor([0.0, 15_000.0], dtype=torch.float64))
    step = (high - low) / 129
    mels = to_mel(torch.arange(513, dtype=torch.float64) * 31.25)
    rows = []
    for band in range(128):
        left, centre, right = (low + (band + i) * step for i in range(3))
        rising, falling = (mels - left) / (centre - left), (right - mels) / (right - centre)
        rows.append(torch.clamp(torch.minimum(rising, falling), min=0))
    return torch.stack(rows).float()

"""Features of a PyTorch run, for the fixtures of the evaluator: writes test/fixtures/eval/features.npz.

    python3 test/oracle/eval_features.py

Needs PyTorch 1.13 or newer and numpy (Debian: python3-torch); a few seconds. A small convolutional network learns to tell six kinds of
synthetic pictures apart. What it then says about pictures of another draw (`real`) and about blurred, paler ones (`fake`) are features as
deep networks have them: not negative, skewed, correlated, with variances over many orders of magnitude and some channels that never fire, so
that the covariances are singular. Another machine gives other features; `eval_expected.py` is run again then.

    real    (400, 48) float32, pooled features
    fake    (300, 48) float32
    logits  (300, 6) float32, of the same pictures as `fake`
"""
import os
import sys

sys.dont_write_bytecode = True

import numpy
import torch
import torch.nn.functional as F

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "eval", "features.npz")
KINDS, SIDE = 6, 16


def pictures(generator, count):
    """Waves whose direction and frequency tell the kind, in random colours, with noise: (count, 3, 16, 16), and the kinds."""
    kinds = torch.randint(KINDS, (count,), generator=generator)
    at = torch.arange(SIDE) / SIDE
    angle = kinds * torch.pi / KINDS + 0.1 * torch.randn(count, generator=generator)
    place = torch.cos(angle)[:, None, None] * at[None, :, None] + torch.sin(angle)[:, None, None] * at[None, None, :]
    phase = torch.rand(count, 1, 1, generator=generator)
    wave = torch.cos(2 * torch.pi * ((2 + kinds % 3)[:, None, None] * place + phase))
    colour = torch.rand(count, 3, 1, 1, generator=generator)
    return colour * wave[:, None] + 0.2 * torch.randn(count, 3, SIDE, SIDE, generator=generator), kinds


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Conv2d(3, 24, 3, 2, 1)
        self.two = torch.nn.Conv2d(24, 48, 3, 2, 1)
        self.head = torch.nn.Linear(48, KINDS)

    def features(self, x):
        return F.relu(self.two(F.relu(self.one(x)))).mean((2, 3))


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    network = Network()
    with torch.no_grad():
        network.two.bias[40:] -= 50  # channels that never fire
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(300):
        x, y = pictures(generator, 64)
        loss = F.cross_entropy(network.head(network.features(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        real = network.features(pictures(generator, 400)[0])
        x, _ = pictures(generator, 300)
        fake = network.features(0.7 * F.avg_pool2d(x, 3, 1, 1) + 0.3 * x)
        logits = network.head(fake)
    print(f"loss {loss.item():.3f}, dead channels {(real == 0).all(0).sum().item()}")
    numpy.savez(OUT, real=real.numpy(), fake=fake.numpy(), logits=logits.numpy())


main()

"""Independent feature networks and resizing: writes test/fixtures/inception.

    python3 test/oracle/inception.py             writes the fixtures again
    python3 test/oracle/inception.py --check     compares the Keras network here with TensorFlow.js, writes nothing

Needs PyTorch 1.13 or newer and numpy (Debian: python3-torch), and nsfwjs in node_modules; half a minute. float64 but for `resize`.
Files (safetensors, F32):
    inception-2015  features of two pictures by the Inception of December 2015 with weights that `weights` makes of names and places;
                    written from the graph's description, layer by layer, batch norms where the graph has them
    nsfwjs          mixed7 of two pictures, averaged over places, by an interpreter of the package's own description of its network
    resize          pictures resized as TensorFlow 1 does, pixel by pixel in float32: <picture>.<H>x<W>.<side>.<every how many>.<grid>
and torchscript.pt, a small archive whose tensors `torchscript` describes. tfjs.json is what `nsfwjs` has, by the package itself on
TensorFlow.js (inception_tfjs.mjs).
"""
import json
import math
import os
import sys

sys.dont_write_bytecode = True

import numpy
import torch
import torch.nn.functional as F

from inception_keras import mixed7
from store import write

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "inception")


def uniform(name, count):
    """In [0, 1): 32 bits that an integer hash makes of each place and the name."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2 ** 32
    x = numpy.arange(count, dtype=numpy.uint32) ^ numpy.uint32(seed)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = (x ^ (x >> numpy.uint32(shift))) * numpy.uint32(factor)
    return x.astype(numpy.float64) / 2 ** 32


def weights(name, shape, low, high):
    """float32 numbers, in float64."""
    values = (low + (high - low) * uniform(name, math.prod(shape))).astype(numpy.float32)
    return torch.from_numpy(values.astype(numpy.float64)).reshape(shape)


def picture(i, height, width):
    """(H, W, 3) uint8: slopes, edges and a moire."""
    y, x, c = numpy.meshgrid(numpy.arange(height), numpy.arange(width), numpy.arange(3), indexing="ij")
    return ((x * (3 + i) + y * 5 + c * 40 + ((x * y) >> (1 + i))) % 256).astype(numpy.uint8)


def resize(image, size, corners):
    """TensorFlow 1's ResizeBilinear of (H, W, C), one number at a time in float32."""
    f = numpy.float32
    height, width, channels = image.shape

    def taps(length):
        step = f(length - 1) / f(size - 1) if corners else f(length) / f(size)
        for i in range(size):
            place = f(i) * step
            low = int(place)
            yield low, min(low + 1, length - 1), place - f(low)

    columns = list(taps(width))
    out = numpy.zeros((size, size, channels), numpy.float32)
    for y, (top, bottom, down) in enumerate(taps(height)):
        for x, (left, right, along) in enumerate(columns):
            for c in range(channels):
                a, b, p, q = (f(image[r, s, c]) for r, s in ((top, left), (top, right), (bottom, left), (bottom, right)))
                upper, lower = a + (b - a) * along, p + (q - p) * along
                out[y, x, c] = upper + (lower - upper) * down
    return out


class Inception2015:
    """inception-2015-12-05's graph: conv2d, batch norm without scale, ReLU; average pools count no padding; the last pool is a max."""

    def cell(self, x, name, out, kernel=(1, 1), stride=1, padding=None):
        shape = (out, x.shape[1], *kernel)
        bound = math.sqrt(6 / (shape[1] * kernel[0] * kernel[1]))
        kernel_values = weights(name + ".weight", shape, -bound, bound)
        beta, mean = weights(name + ".beta", (out,), -0.1, 0.2), weights(name + ".mean", (out,), -0.3, 0.3)
        variance = weights(name + ".var", (out,), 0.5, 1.5)
        padding = tuple((k - 1) // 2 for k in kernel) if padding is None else padding
        x = F.conv2d(x, kernel_values, stride=stride, padding=padding)
        return torch.relu((x - mean[:, None, None]) / torch.sqrt(variance + 0.001)[:, None, None] + beta[:, None, None])

    def average(self, x):
        ones = F.avg_pool2d(torch.ones_like(x[:1, :1]), 3, 1, 1, divisor_override=1)
        return F.avg_pool2d(x, 3, 1, 1, divisor_override=1) / ones

    def at35(self, x, name, pooled):
        a = self.cell(x, name + ".conv", 64)
        b = self.cell(self.cell(x, name + ".tower.conv", 48), name + ".tower.conv_1", 64, (5, 5))
        c = self.cell(x, name + ".tower_1.conv", 64)
        c = self.cell(c, name + ".tower_1.conv_1", 96, (3, 3))
        c = self.cell(c, name + ".tower_1.conv_2", 96, (3, 3))
        d = self.cell(self.average(x), name + ".tower_2.conv", pooled)
        return torch.cat((a, b, c, d), 1)

    def at17(self, x, name, width):
        a = self.cell(x, name + ".conv", 192)
        if name == "mixed_6":
            self.spatial = a[0, :7].permute(1, 2, 0).reshape(-1)        # the graph is NHWC
        b = self.cell(x, name + ".tower.conv", width)
        b = self.cell(b, name + ".tower.conv_1", width, (1, 7))
        b = self.cell(b, name + ".tower.conv_2", 192, (7, 1))
        c = self.cell(x, name + ".tower_1.conv", width)
        for i, kernel in enumerate(((7, 1), (1, 7), (7, 1), (1, 7)), 1):
            c = self.cell(c, f"{name}.tower_1.conv_{i}", 192 if i == 4 else width, kernel)
        d = self.cell(self.average(x), name + ".tower_2.conv", 192)
        return torch.cat((a, b, c, d), 1)

    def at8(self, x, name, pooled):
        a = self.cell(x, name + ".conv", 320)
        b = self.cell(x, name + ".tower_conv", 384)
        c = self.cell(self.cell(x, name + ".tower_1_conv", 448), name + ".tower_1_conv_1", 384, (3, 3))
        both = [self.cell(y, f"{name}.{tower}_mixed_conv{end}", 384, kernel)
                for y, tower in ((b, "tower"), (c, "tower_1")) for end, kernel in (("", (1, 3)), ("_1", (3, 1)))]
        return torch.cat((a, *both, self.cell(pooled, name + ".tower_2_conv", 192)), 1)

    def __call__(self, image):
        x = torch.from_numpy((resize(image, 299, False).astype(numpy.float64) - 128) / 128).permute(2, 0, 1)[None]
        x = self.cell(x, "conv", 32, (3, 3), 2, 0)
        x = self.cell(x, "conv_1", 32, (3, 3), 1, 0)
        x = F.max_pool2d(self.cell(x, "conv_2", 64, (3, 3)), 3, 2)
        x = self.cell(self.cell(x, "conv_3", 80), "conv_4", 192, (3, 3), 1, 0)
        x = F.max_pool2d(x, 3, 2)
        for name, pooled in (("mixed", 32), ("mixed_1", 64), ("mixed_2", 64)):
            x = self.at35(x, name, pooled)
        a = self.cell(x, "mixed_3.conv", 384, (3, 3), 2, 0)
        b = self.cell(self.cell(x, "mixed_3.tower.conv", 64), "mixed_3.tower.conv_1", 96, (3, 3))
        x = torch.cat((a, self.cell(b, "mixed_3.tower.conv_2", 96, (3, 3), 2, 0), F.max_pool2d(x, 3, 2)), 1)
        for name, width in (("mixed_4", 128), ("mixed_5", 160), ("mixed_6", 160), ("mixed_7", 192)):
            x = self.at17(x, name, width)
        a = self.cell(self.cell(x, "mixed_8.tower.conv", 192), "mixed_8.tower.conv_1", 320, (3, 3), 2, 0)
        b = self.cell(x, "mixed_8.tower_1.conv", 192)
        b = self.cell(b, "mixed_8.tower_1.conv_1", 192, (1, 7))
        b = self.cell(b, "mixed_8.tower_1.conv_2", 192, (7, 1))
        x = torch.cat((a, self.cell(b, "mixed_8.tower_1.conv_3", 192, (3, 3), 2, 0), F.max_pool2d(x, 3, 2)), 1)
        x = self.at8(x, "mixed_9", self.average(x))
        x = self.at8(x, "mixed_10", F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-math.inf), 3, 1))
        pooled = F.avg_pool2d(x, 8)[0, :, 0, 0]
        bound = math.sqrt(3 / 2048)
        return dict(pooled=pooled, spatial=self.spatial, logits=weights("output.weight", (1008, 2048), -bound, bound) @ pooled)




def inception():
    network, out = Inception2015(), {}
    for i, height, width in ((0, 40, 56), (1, 299, 299)):         # resized, and as it is
        out.update({f"{what}.{i}": value.float().double() for what, value in network(picture(i, height, width)).items()})
    return out


def nsfwjs():
    out = {}
    for i, height, width in ((0, 48, 48), (1, 320, 320)):
        x = resize(picture(i, height, width), 299, True).astype(numpy.float64) / 255
        out[f"mixed7.{i}"] = mixed7(x).float().double()
    return out


def resized():
    out = {}
    for i, height, width, size, every in ((0, 5, 7, 16, 1), (1, 40, 56, 17, 1), (2, 40, 320, 299, 13), (3, 1, 1, 3, 1)):
        for grid, corners in (("origin", False), ("corners", True)):
            whole = resize(picture(i, height, width), size, corners)
            out[f"{i}.{height}x{width}.{size}.{every}.{grid}"] = torch.from_numpy(whole[::every, ::every].copy()).double()
    return out


def torchscript():
    class Part(torch.nn.Module):
        def __init__(self, kernel):
            super().__init__()
            self.weight, self.padding, self.stride = torch.nn.Parameter(kernel), [0, 3], 2

        def forward(self, x):
            return F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            plain = torch.arange(24.0).reshape(2, 3, 2, 2)
            self.layers = torch.nn.Sequential()
            self.layers.add_module("conv", Part(plain))
            self.layers.add_module("mixed_1", torch.nn.Sequential(Part(torch.arange(24.0).reshape(2, 2, 3, 2).permute(3, 2, 0, 1))))
            shared = torch.arange(10.0)
            for name, value in (("narrow", shared.half() / 4), ("coarse", shared.bfloat16() / 4), ("wide", shared.double() / 3),
                                ("whole", shared.long() - 5), ("truth", shared > 4), ("scalar", torch.tensor(1.5)), ("none", torch.zeros(0, 3)),
                                ("first", shared[:5]), ("second", shared[2::3])):
                self.register_buffer(name, value)
            self.factor, self.name, self.table = 0.25, "whole", {"a": 1}

        def forward(self, x):
            return self.layers(x) * self.factor + self.table["a"]

    torch.jit.script(Whole().eval()).save(os.path.join(OUT, "torchscript.pt"))


def main():
    torch.set_num_threads(1)
    with open(os.path.join(OUT, "tfjs.json")) as file:
        tfjs = {f"tfjs.{i}": torch.tensor(values, dtype=torch.float64) for i, values in json.load(file).items()}
    found = nsfwjs()
    for i in "01":
        difference = (found[f"mixed7.{i}"] - tfjs[f"tfjs.{i}"]).norm() / tfjs[f"tfjs.{i}"].norm()
        assert difference < 1e-5, difference
        print(f"ok  picture {i}: {difference:.1e} from TensorFlow.js")
    if "--check" in sys.argv[1:]:
        return
    for name, tensors in (("nsfwjs", found), ("resize", resized()), ("inception-2015", inception())):
        print(f"{name}: {write(os.path.join(OUT, name + '.safetensors'), tensors, {}, single=True)} bytes")
    torchscript()


if __name__ == "__main__":
    main()

"""Independent computation of the network, losses, gradients, samplers and statistics: writes test/fixtures/oracle.

    python3 test/oracle/oracle.py            writes the fixtures again (equal bytes on one machine)
    python3 test/oracle/oracle.py --check    checks this program itself, writes nothing

Needs PyTorch 1.13 or newer and numpy (Debian: python3-torch); float64 throughout, one thread, a few seconds. Every random value comes from
numpy's PCG64 with a fixed seed for each file. On another processor or BLAS the last bits may differ; values then agree to about 1e-13.

Files (F64 or I64, but the weights, which are float32 numbers and stored so; masks are I64 of 0 and 1; pictures (B, H, W,
channels) in [-1, 1]; `store.py` explains `grad.`, `sketch.`, `probe.` and `reach.`; the metadata's `case` is JSON). B = 4, N = 16,
C = 5, d = 32, h = 2, L = 3, F = 24, P = 12, K = 4. A gradient that is zero everywhere, or that does not exist, is left out:
    weights         online.<name>, target.<name>: two networks, unrelated values, nothing at its zero start
    draws-<k>       pictures, labels, global indices 7 to 10 and all random draws for k denoising passes (1 or 3)
    trunk           rope, time embedding, shared modulation, one block, the trunk in each role: <what>.input.<name>,
                    <what>.output, <what>.projection, and of sum(output * projection) <what>.input_grad.<name>,
                    <what>.grad.<parameter> or <what>.sketch.<parameter>, <what>.reach; an input or projection that
                    several share stands once, without the prefix
    roles           the same for encode plain and masked, with and without the latent norm; denoise; decode
    loss-<case>     the terms loss.<term>, what lies between (value.*), the gradient of `total` for every online
                    parameter, reach.<term>, and gradients at the latents, twice: tap.<term>.<z> is the partial derivative
                    of the term as a function of three separate latents (z1 into the decoder, zc into the denoiser,
                    z2 as target); latent.<term>.z1 is the derivative through all three where they are one tensor,
                    or where zc takes its unmasked pictures from z1
    samplers        Euler and Heun, networks that give the clean latent, also preconditioned, or the velocity, with and without guidance
    optimizer       AdamW with clipping and an average, five steps, weight decay 0 and 0.01
    lpips           a tiny VGG16 distance with the names of torchvision and lpips
    identity        the paper's figure 3: both losses by sample, with one shared latent and with two
    statistics      effective rank, PSNR, per-patch PCA, Frechet distance, precision and recall
"""
import json
import math
import os
import sys

sys.dont_write_bytecode = True

import numpy
import torch

import measures
from model import (DEFAULTS, SHIFT, Toy, block, decode, denoise, encode, grid, latents, losses, modulation, rope, sample,
                   time_embedding, trunk)
from store import gradients, reach, sketches, write

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "oracle")
s = Toy


class Draws:
    """Values of one file, from one seed, in the order in which they are asked for."""

    def __init__(self, seed):
        self.generator = numpy.random.Generator(numpy.random.PCG64(seed))

    def normal(self, *shape, scale=1.0, centre=0.0):
        return torch.from_numpy(self.generator.standard_normal(shape) * scale + centre)

    def uniform(self, *shape):
        return torch.from_numpy(self.generator.random(shape))

    def integer(self, n, *shape):
        return torch.from_numpy(self.generator.integers(0, n, shape))

    def pictures(self, count, size=s.size):
        """Smooth pictures in [-1, 1]: a few waves a channel and a little noise."""
        at = torch.arange(size, dtype=torch.float64) / size
        out = torch.zeros(count, size, size, s.channels, dtype=torch.float64)
        for _ in range(4):
            f, phase, level = (self.normal(count, 1, 1, s.channels, n) for n in (2, 1, 1))
            wave = f[..., 0] * at[None, :, None, None] + f[..., 1] * at[None, None, :, None]
            out = out + level[..., 0] * torch.cos(2 * math.pi * wave + 3 * phase[..., 0])
        return torch.tanh(0.7 * out + 0.1 * self.normal(count, size, size, s.channels))


def shapes():
    d, narrow = s.width, min(s.width, 256)
    out = {"mask_token": (d,), "trunk.class.weight": (s.classes + 1, d), "trunk.role.weight": (3, d),
           "represent.prototypes": (s.prototypes, narrow)}
    full = {"patch_in": (d, s.pixels), "latent_in": (d, s.latent), "latent_out": (s.latent, d), "denoise_out": (s.latent, d),
            "patch_out": (s.pixels, d), "trunk.time.0": (d, 256), "trunk.time.2": (d, d), "trunk.modulation": (6 * d, d),
            "align.0": (d, d), "align.2": (d, d), "align.4": (d, d), "represent.0": (d, d), "represent.2": (narrow, d),
            "classify": (s.classes, d)}
    for name, (rows, columns) in full.items():
        out[name + ".weight"], out[name + ".bias"] = (rows, columns), (rows,)
    for i in range(s.layers):
        at = f"trunk.blocks.{i}."
        out.update({at + "qkv.weight": (3 * d, d), at + "proj.weight": (d, d), at + "gate_up.weight": (2 * s.hidden, d),
                    at + "down.weight": (d, s.hidden), at + "q_norm.weight": (s.head,), at + "k_norm.weight": (s.head,),
                    at + "table": (6, d)})
    return dict(sorted(out.items()))


def network(draws):
    """Random weights of a size at which every path matters: attention not uniform, gates and shifts not near zero."""
    w = {}
    for name, shape in shapes().items():
        if name.endswith("_norm.weight"):
            w[name] = draws.normal(*shape, scale=0.2, centre=1.0)
        elif name.endswith("table") or name.endswith(".bias"):
            w[name] = draws.normal(*shape, scale=0.1)
        elif name in ("mask_token", "trunk.class.weight", "trunk.role.weight", "represent.prototypes"):
            w[name] = draws.normal(*shape, scale=0.5)
        else:
            w[name] = draws.normal(*shape, scale=shape[1] ** -0.5)
    # float32 numbers: half the file, and tests of float32 round no weight
    return {name: value.float().double() for name, value in w.items()}


def live(w):
    return {name: value.clone().requires_grad_() for name, value in w.items()}


NETWORKS = Draws(1)
ONLINE, TARGET = network(NETWORKS), network(NETWORKS)
NAMES = sorted(ONLINE)
SIZES = {"width": s.width, "heads": s.heads, "layers": s.layers, "hidden": s.hidden, "latent": s.latent, "patch": s.patch, "size": s.size,
         "channels": s.channels, "classes": s.classes, "prototypes": s.prototypes, "batch": s.batch, "shift": SHIFT}


def text(**case):
    return {"case": json.dumps({**SIZES, **case}, sort_keys=True), "parameters": json.dumps(NAMES)}


def projected(prefix, run, w, inputs, projection, full=False, shared=()):
    """Output of run(w, inputs) and the gradients of sum(output * projection), for the inputs and for every parameter."""
    w, inputs = live(w), {k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in inputs.items()}
    output = run(w, inputs)
    found = gradients(output, w, projection)
    floating = {k: v for k, v in inputs.items() if v.is_floating_point()}
    out = {f"{prefix}output": output, f"{prefix}reach": reach(found, NAMES)}
    out.update({("" if k in shared else prefix) + f"input.{k}": v for k, v in inputs.items()})
    out["projection" if "projection" in shared else f"{prefix}projection"] = projection
    out.update({f"{prefix}input_grad.{k}": g for k, g in gradients(output, floating, projection).items() if g is not None})
    out.update(sketches(prefix, found, full))
    return out


def trunk_case():
    draws, out = Draws(10), {}
    shape = (s.batch, s.tokens, s.width)
    h, t, y = draws.normal(*shape), torch.tensor([0.0, 0.137, 0.75, 1.0], dtype=torch.float64), torch.tensor([2, 0, s.classes, 3])
    projection = draws.normal(*shape)
    heads = (s.batch, s.tokens, s.heads, s.head)
    out.update(projected("rope.", lambda w, i: rope(i["q"]), ONLINE, {"q": draws.normal(*heads)}, draws.normal(*heads)))
    out.update(projected("time.", lambda w, i: time_embedding(i["t"]), ONLINE, {"t": t}, draws.normal(s.batch, 256), shared="t"))
    out.update(projected("modulation.", lambda w, i: modulation(w, i["t"], i["y"], 1), ONLINE, {"t": t, "y": y},
                         draws.normal(s.batch, 6, s.width), shared="ty"))
    out.update(projected("block.", lambda w, i: block(w, 1, i["h"], i["m"]), ONLINE,
                         {"h": h, "m": draws.normal(s.batch, 6, s.width, scale=0.3)}, projection, full=True, shared=("h", "projection")))
    for role, name in enumerate(("encode", "denoise", "decode")):
        run = lambda w, i: trunk(w, i["h"], i["t"], i["y"], role)[0]
        out.update(projected(f"{name}.", run, ONLINE, {"h": h, "t": t, "y": y}, projection, shared=("h", "t", "y", "projection")))
    for number, tokens in enumerate(trunk(ONLINE, h, t, y, 1)[1], 1):
        out[f"denoise.after.{number}"] = tokens
    return out, text(block=1, modulation_role=1)


def roles_case():
    draws, out = Draws(11), {}
    x, mask = draws.pictures(s.batch), draws.uniform(s.batch, s.tokens) < 0.3
    latent = (s.batch, s.tokens, s.latent)
    projection = draws.normal(*latent)
    for view in ("plain", "masked"):
        for norm in (True, False):
            at = f"encode.{view}.{'norm' if norm else 'raw'}."
            given = mask if view == "masked" else None
            run = lambda w, i: encode(w, i["x"], given, norm)[0]
            out.update(projected(at, run, ONLINE, {"x": x}, projection, shared=("x", "projection")))
        out[f"encode.{view}.tokens"] = encode(ONLINE, x, given)[1]
    out["mask"] = mask
    t, y = torch.tensor([0.02, 0.4, 0.66, 0.97], dtype=torch.float64), torch.tensor([1, 3, 0, s.classes])
    out.update(projected("denoise.", lambda w, i: denoise(w, i["z"], i["t"], i["y"])[0], ONLINE,
                         {"z": draws.normal(*latent), "t": t, "y": y}, draws.normal(*latent)))
    out.update(projected("decode.", lambda w, i: decode(w, i["z"]), ONLINE, {"z": draws.normal(*latent)}, draws.normal(*x.shape)))
    return out, text()


NO_HELP = dict(align=0, represent=0, classify=0)
NAIVE = dict(NO_HELP, target="velocity", stop_gradient=False, ema_target=False, mask=False, latent_norm=False)
CASES = {
    "dsd": {},
    "dsd-passes": dict(NO_HELP, passes=3, mask=False),
    "dsd-passes-align": dict(passes=3, represent=0, classify=0),
    "dsd-input-cut": dict(input_gradient=False),
    "dsd-preconditioned": dict(NO_HELP, preconditioned=True),
    "naive": NAIVE,
    "naive-sg": dict(NAIVE, stop_gradient=True),
    "clean": dict(NAIVE, target="clean"),
    "clean-sg": dict(NAIVE, target="clean", stop_gradient=True),
    "velocity-ema": dict(NO_HELP, target="velocity"),
    "self-distillation": dict(NO_HELP, self_distillation=True, reconstruction=0),
    "latent-diffusion": dict(NO_HELP, target="velocity", frozen_encoder=True, input_gradient=False, mask=False, reconstruction=0),
    "autoencoder": dict(NO_HELP, mask=False, denoise=0),
}


def draws_for(passes, seed=20):
    draws, k, b = Draws(seed), passes, s.batch
    return {
        "x": draws.pictures(b), "y": torch.tensor([3, 0, 2, 1]), "indices": torch.arange(7, 7 + b),
        "center": draws.normal(s.prototypes, scale=0.05), "mask": draws.uniform(b, s.tokens),
        "decode_noise": draws.normal(b, s.tokens, s.latent),
        "decode_level": torch.tensor([[0.81, 0.4], [0.13, 0.62], [0.49, 0.05], [0.5, 0.9]], dtype=torch.float64),
        "noise": draws.normal(b, k, s.tokens, s.latent), "time": draws.normal(b, k),
        # one picture's class is dropped whatever k is, and 0.1 itself keeps its class
        "drop": torch.cat([torch.tensor([[0.5], [0.1], [0.03], [0.9]], dtype=torch.float64), draws.uniform(b, 2)], 1)[:, :k].contiguous(),
    }


def nonzero(prefix, found):
    return {prefix + name: g for name, g in found.items() if g is not None and g.any()}


def loss_case(changes, full):
    case = {**DEFAULTS, **changes}
    d, w = draws_for(case["passes"]), live(ONLINE)
    found = latents(w, TARGET, d, case)
    terms, values = losses(w, TARGET, d, case, found)
    names = ("z1", "zc", "z2")
    out = {f"loss.{k}": v for k, v in terms.items()}
    out.update({f"value.{k}": v for k, v in values.items() if full or k != "decoded"})
    out.update({f"value.{z}": found[z] for z in names})
    if found["mask"] is not None:
        out["value.mask"] = found["mask"]
    for term, value in terms.items():
        by_name = gradients(value, w)
        out[f"reach.{term}"] = reach(by_name, NAMES)
        if term == "total":
            out.update(sketches("", by_name, full))
            continue
        if found["z1"].requires_grad:
            out.update(nonzero(f"latent.{term}.", gradients(value, {"z1": found["z1"]})))
    leaves = {z: found[z].detach().clone().requires_grad_() for z in names}
    partial = losses(w, TARGET, d, case, {**found, **leaves})[0]
    for term in [name for name in partial if name != "total"]:
        out.update(nonzero(f"tap.{term}.", gradients(partial[term], leaves)))
    return out, text(**case)


def samplers_case():
    draws = Draws(30)
    z, y = draws.normal(s.batch, s.tokens, s.latent), torch.tensor([1, 3, 0, 2])
    out = {"input.z": z, "input.y": y}
    for solver, steps in (("euler", 20), ("heun", 10)):
        out[f"grid.{solver}"] = torch.tensor(grid(steps), dtype=torch.float64)
        for target in ("clean", "velocity", "preconditioned"):
            for name, guidance, interval in (("guided", 1.5, (0.1, 1.0)), ("inner", 2.0, (0.3, 0.7)), ("plain", 1.0, (0.1, 1.0))):
                states = sample(ONLINE, z, y, solver, steps, target, guidance, interval)
                at = f"{solver}.{target}.{name}."
                out[at + "first"], out[at + "z"] = states[0], states[-1]
                if name == "guided" and target == "clean":
                    out[at + "decoded"] = decode(ONLINE, states[-1])
    return out, text(euler=20, heun=10, guided={"scale": 1.5, "interval": [0.1, 1]}, inner={"scale": 2, "interval": [0.3, 0.7]},
                     plain={"scale": 1})


def identity_case():
    """f = z_t + (1 - t) v is the clean prediction a velocity v implies; w_t = 1 / (1 - t)^2."""
    d = draws_for(1, seed=31)
    with torch.no_grad():
        z2, zc = encode(TARGET, d["x"])[0], encode(ONLINE, d["x"], d["mask"] < 0.25)[0]
        t = torch.sigmoid(d["time"].reshape(-1))
        t = (SHIFT * t / (1 + (SHIFT - 1) * t))
        time, eps, out = t[:, None, None], d["noise"][:, 0], {f"input.{k}": v for k, v in d.items()}
        z_t = time * zc + (1 - time) * eps
        v = denoise(ONLINE, z_t, t, d["y"])[0]
        f = z_t + (1 - time) * v
        square = lambda e: (e * e).mean((1, 2))
        out.update({"t": t, "zc": zc, "z2": z2, "z_t": z_t, "velocity": v, "clean": f, "weight": 1 / (1 - t) ** 2,
                    "shared.velocity_loss": square(v - (zc - eps)), "shared.weighted_clean_loss": square(f - zc) / (1 - t) ** 2,
                    "unshared.velocity_error": v - (z2 - eps), "unshared.clean_error": f - z2, "unshared.extra": time * (zc - z2)})
    return out, text()


def main():
    torch.set_num_threads(1)
    os.makedirs(OUT, exist_ok=True)
    weights = {f"{kind}.{name}": value for kind, w in (("online", ONLINE), ("target", TARGET)) for name, value in w.items()}
    files = {"weights": lambda: (weights, text()), "draws-1": lambda: (draws_for(1), text()), "draws-3": lambda: (draws_for(3), text()),
             "trunk": trunk_case, "roles": roles_case, "samplers": samplers_case,
             "identity": identity_case, "optimizer": lambda: measures.optimizer(Draws(40)), "lpips": lambda: measures.lpips(Draws(41)),
             "statistics": lambda: measures.statistics(Draws(42))}
    files.update({f"loss-{name}": (lambda name=name: loss_case(CASES[name], full=name == "dsd")) for name in CASES})
    if "--check" in sys.argv:
        import check
        return check.run(sys.modules[__name__])
    total = 0
    for name, make in files.items():
        size = write(os.path.join(OUT, name + ".safetensors"), *make(), single=name == "weights")
        total += size
        print(f"{name:20} {size:9,} bytes")
    print(f"{'':20} {total:9,} bytes")


if __name__ == "__main__":
    main()

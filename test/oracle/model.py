"""The DSD network, its losses and its samplers in plain PyTorch, one function for one formula.

Written from the method alone, never from the TypeScript, so that an error would have to be made twice to go unseen.
Weights are a dict from the name in the weights file to a tensor. Everything runs in the dtype of those tensors.
B pictures, N = n * n tokens, d width, h heads, hd = d / h, C latent channels, K classes (class K means "none").
"""
import math

import torch
import torch.nn.functional as F

ENCODE, DENOISE, DECODE = 0, 1, 2
SHIFT = 0.71          # a in t' = a t / (1 + (a - 1) t), for training times and the sampling grid alike
EPS = 1e-6            # every RMS norm, and the latent LayerNorm


class Toy:
    """Sizes of the fixture model: every axis has another length wherever that is possible, so a swap of axes shows."""
    width, heads, layers, hidden, latent = 32, 2, 3, 24, 5
    patch, size, channels, classes, prototypes, batch = 4, 16, 3, 4, 12, 4
    side = size // patch
    tokens = side * side
    pixels = patch * patch * channels
    head = width // heads


def rms(x):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS)


def linear(w, name, x):
    y = x @ w[name + ".weight"].t()
    bias = w.get(name + ".bias")
    return y if bias is None else y + bias


def silu(x):
    return x * torch.sigmoid(x)


def patchify(x, s=Toy):
    n, p = s.side, s.patch
    return x.view(-1, n, p, n, p, s.channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, s.tokens, s.pixels)


def unpatchify(patches, s=Toy):
    n, p = s.side, s.patch
    return patches.view(-1, n, n, p, p, s.channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, s.size, s.size, s.channels)


def time_embedding(t):
    """(B) -> (B, 256): cosines of 128 frequencies, then their sines."""
    f = torch.exp(-math.log(10000.0) * torch.arange(128, dtype=t.dtype) / 128)
    a = 1000 * t[:, None] * f
    return torch.cat([torch.cos(a), torch.sin(a)], -1)


def rope(q, s=Toy):
    """(B, N, h, hd), row angles in the first quarter of the pairs' halves, column angles in the second."""
    quarter = s.head // 4
    freq = 10000.0 ** (-torch.arange(quarter, dtype=q.dtype) / quarter)
    token = torch.arange(s.tokens)
    row, col = (token // s.side).to(q.dtype), (token % s.side).to(q.dtype)
    angle = torch.cat([row[:, None] * freq, col[:, None] * freq], -1)[None, :, None, :]      # (1, N, 1, hd/2)
    a, b = q[..., : s.head // 2], q[..., s.head // 2:]
    return torch.cat([a * torch.cos(angle) - b * torch.sin(angle), a * torch.sin(angle) + b * torch.cos(angle)], -1)


def modulation(w, t, y, role, s=Toy):
    """(B, 6, d): the part of adaLN that all blocks share."""
    c = linear(w, "trunk.time.2", silu(linear(w, "trunk.time.0", time_embedding(t))))
    c = c + w["trunk.class.weight"][y] + w["trunk.role.weight"][role]
    return linear(w, "trunk.modulation", silu(c)).view(-1, 6, s.width)


def block(w, i, x, m, s=Toy):
    at = f"trunk.blocks.{i}."
    shift1, scale1, gate1, shift2, scale2, gate2 = (m + w[at + "table"]).unsqueeze(2).unbind(1)   # each (B, 1, d)
    y = rms(x) * (1 + scale1) + shift1
    q, k, v = linear(w, at + "qkv", y).view(-1, s.tokens, 3, s.heads, s.head).unbind(2)           # each (B, N, h, hd)
    q = rope(rms(q) * w[at + "q_norm.weight"])
    k = rope(rms(k) * w[at + "k_norm.weight"])
    weights = torch.softmax(torch.einsum("bnhe,bmhe->bhnm", q, k) / math.sqrt(s.head), -1)
    attended = torch.einsum("bhnm,bmhe->bnhe", weights, v).reshape(-1, s.tokens, s.width)
    x = x + (1 + gate1) * linear(w, at + "proj", attended)
    y = rms(x) * (1 + scale2) + shift2
    u, g = linear(w, at + "gate_up", y).chunk(2, -1)
    return x + (1 + gate2) * linear(w, at + "down", silu(u) * g)


def trunk(w, x, t, y, role, s=Toy):
    """(B, N, d) -> final tokens after the last norm, and the residual stream after each block (block 1 first)."""
    m = modulation(w, t, y, role)
    after = []
    for i in range(s.layers):
        x = block(w, i, x, m)
        after.append(x)
    return rms(x), after


def encode(w, x, mask=None, norm=True, s=Toy):
    """(B, H, W, ch), mask (B, N) bool or None -> latent (B, N, C), final tokens, tokens after each block."""
    h = linear(w, "patch_in", patchify(x))
    if mask is not None:
        h = torch.where(mask[:, :, None], w["mask_token"].expand_as(h), h)
    tokens, after = trunk(w, h, torch.ones(x.shape[0], dtype=x.dtype), torch.full((x.shape[0],), s.classes), ENCODE)
    z = linear(w, "latent_out", tokens)
    if norm:
        z = (z - z.mean(-1, keepdim=True)) / torch.sqrt(z.var(-1, unbiased=False, keepdim=True) + EPS)
    return z, tokens, after


def denoise(w, z_t, t, y):
    """(B, N, C) -> what the network predicts (B, N, C), and the tokens after each block."""
    tokens, after = trunk(w, linear(w, "latent_in", z_t), t, y, DENOISE)
    return linear(w, "denoise_out", tokens), after


def decode(w, z, s=Toy):
    one = torch.ones(z.shape[0], dtype=z.dtype)
    tokens, _ = trunk(w, linear(w, "latent_in", z), one, torch.full((z.shape[0],), s.classes), DECODE)
    return unpatchify(linear(w, "patch_out", tokens))


def shifted(t):
    return SHIFT * t / (1 + (SHIFT - 1) * t)


def align_head(w, tokens):
    h = silu(linear(w, "align.0", tokens))
    return linear(w, "align.4", silu(linear(w, "align.2", h)))


def represent_head(w, tokens):
    """Final tokens (B, N, d) -> cosine of the pooled picture with each prototype (B, P)."""
    h = linear(w, "represent.2", F.gelu(linear(w, "represent.0", tokens.mean(1))))
    return F.normalize(h, dim=-1) @ F.normalize(w["represent.prototypes"], dim=-1).t()


DEFAULTS = dict(
    target="clean",          # what the network predicts: the clean latent, or the velocity z - eps
    stop_gradient=True,      # on the target
    ema_target=True,         # target by the averaged weights; else by the online ones (the same z)
    mask=True,               # the augmented view, on pictures of even global index
    input_gradient=True,     # gradient into z_t
    latent_norm=True,
    decoder_noise=True,
    passes=1,                # k
    denoise=0.3, align=0.5, represent=0.25, classify=0.1, reconstruction=1.0,   # weights; 0 is "not computed"
    frozen_encoder=False,    # latent diffusion: z by the frozen network A (the `target.` weights), the denoiser is B
    self_distillation=False, # denoise role on zc at t = 1, no eps
)


def preconditioned(given, z, t):
    """The clean latent that `given` (B, N, C) stands for: the best linear guess from z = t x + (1 - t) eps plus given at the scale of what is
    left, for x of deviation 1. That guess is Cov(x, z) / Var(z) z, and the variance left is Var(x) - Cov(x, z)^2 / Var(z)."""
    t = t.reshape(-1, 1, 1)
    variance = t ** 2 + (1 - t) ** 2
    return z * t / variance + given * (1 - t ** 2 / variance) ** 0.5


def latents(online, target, d, case, s=Toy):
    """The three latents of a step and what the auxiliaries read. Nothing is detached here but the averaged network."""
    mask = None
    if case["mask"]:
        mask = (d["mask"] < 0.25) & (d["indices"] % 2 == 0)[:, None]
    with torch.no_grad():
        ema = encode(target, d["x"], None, case["latent_norm"])
    if case["frozen_encoder"]:
        return dict(z1=ema[0], zc=ema[0], z2=ema[0], ema=ema, mask=mask)
    z1, tokens, _ = encode(online, d["x"], None, case["latent_norm"])
    zc, view = z1, tokens
    if mask is not None:
        zm, tm, _ = encode(online, d["x"], mask, case["latent_norm"])
        masked = mask.any(1)[:, None, None]
        zc, view = torch.where(masked, zm, z1), torch.where(masked, tm, tokens)
    z2 = ema[0] if case["ema_target"] else zc
    return dict(z1=z1, zc=zc, z2=z2, ema=ema, mask=mask, tokens=tokens, view=view)


def losses(online, target, d, case, l, s=Toy):
    """Every loss term by name, as a function of the weights and of the latents in `l` (read only as l["z1"] and so on)."""
    k, size = case["passes"], s.batch * case["passes"]
    out, terms = {}, {}
    if case["reconstruction"]:
        z = l["z1"]
        if case["decoder_noise"]:
            u = d["decode_level"]
            level = torch.where(u[:, 0] < 0.5, 0.7 + 0.3 * u[:, 1], torch.ones_like(u[:, 0]))[:, None, None]
            z = level * z + (1 - level) * d["decode_noise"]
        out["decoded"] = decode(online, z)
        terms["reconstruction"] = (out["decoded"] - d["x"]).abs().mean()
    if case["denoise"]:
        y = d["y"].repeat_interleave(k)
        y = torch.where(d["drop"].reshape(size) < 0.1, torch.full_like(y, s.classes), y)
        zc, z2 = l["zc"].repeat_interleave(k, 0), l["z2"].repeat_interleave(k, 0)
        if not case["input_gradient"]:
            zc = zc.detach()
        if case["stop_gradient"]:
            z2 = z2.detach()
        eps = d["noise"].reshape(size, s.tokens, s.latent)
        if case["self_distillation"]:
            t, z_t = torch.ones(size, dtype=zc.dtype), zc
        else:
            t = shifted(torch.sigmoid(d["time"].reshape(size)))
            z_t = t[:, None, None] * zc + (1 - t[:, None, None]) * eps
        out["t"], out["z_t"] = t, z_t
        out["prediction"], after = denoise(online, z_t, t, y)
        if case.get("preconditioned"):
            out["prediction"] = preconditioned(out["prediction"], z_t, t)
        goal = z2 - eps if case["target"] == "velocity" else z2
        terms["denoise"] = ((out["prediction"] - goal) ** 2).mean()
        if case["align"]:
            teacher = l["ema"][2][math.ceil(2 * s.layers / 3) - 1].repeat_interleave(k, 0).detach()
            student = align_head(online, after[math.ceil(s.layers / 3) - 1])
            terms["align"] = 1 - F.cosine_similarity(student, teacher, dim=-1).mean()
    if case["represent"]:
        with torch.no_grad():
            out["teacher_logits"] = represent_head(target, l["ema"][1])
            teacher = torch.softmax((out["teacher_logits"] - d["center"]) / 0.04, -1)
        student = represent_head(online, l["view"]) / 0.1
        terms["represent"] = -(teacher * torch.log_softmax(student, -1)).sum(-1).mean()
    if case["classify"]:
        terms["classify"] = F.cross_entropy(linear(online, "classify", l["tokens"].mean(1)), d["y"])
    terms["total"] = sum(case[name] * value for name, value in terms.items())
    return terms, out


def grid(steps):
    return [shifted(i / steps) for i in range(steps + 1)]


def sample(w, z, y, solver, steps, target, guidance, interval, s=Toy):
    """z (B, N, C) at t = 0 -> all states, z after each step. The null class is used only where t is in the interval."""
    null = torch.full_like(y, s.classes)

    def slope(z, t):
        time = torch.full((z.shape[0],), t, dtype=z.dtype)
        p = denoise(w, z, time, y)[0]
        if guidance != 1 and interval[0] <= t <= interval[1]:
            u = denoise(w, z, time, null)[0]
            p = u + guidance * (p - u)
        if target == "preconditioned":
            p = preconditioned(p, z, time)
        return p if target == "velocity" else (p - z) / (1 - t)

    states, times = [], grid(steps)
    for i in range(steps):
        t, to = times[i], times[i + 1]
        first = slope(z, t)
        step = first
        if solver == "heun" and i < steps - 1:
            step = (first + slope(z + (to - t) * first, to)) / 2
        z = z + (to - t) * step
        states.append(z)
    return states

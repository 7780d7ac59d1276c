"""Checks of the oracle by itself: autograd against finite differences, and each hand-written formula against another way."""
import math

import torch
import torch.nn.functional as F

import measures
from model import (DEFAULTS, EPS, Toy as s, block, decode, denoise, encode, latents, losses, rms, rope, sample, time_embedding, trunk)


def difference(run, w, names, label, picks=3, h=1e-5, analytic=None):
    """Central differences of run(w) for a few elements of the named parameters against autograd."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    live = {k: v.clone().requires_grad_() for k, v in w.items()}
    found = analytic or dict(zip(names, torch.autograd.grad(run(live), [live[n] for n in names], allow_unused=True)))
    with torch.no_grad():
        for name in names:
            size = w[name].numel()
            for at in torch.randint(size, (picks,), generator=generator).tolist():
                values = []
                for sign in (1, -1):
                    moved = w[name].clone()
                    moved.view(-1)[at] += sign * h
                    values.append(float(run({**w, name: moved})))
                numeric = (values[0] - values[1]) / (2 * h)
                exact = 0.0 if found[name] is None else float(found[name].reshape(-1)[at])
                scale = 1e-3 if found[name] is None else max(float(found[name].abs().max()), 1e-3)
                worst = max(worst, abs(numeric - exact) / scale)
    assert worst < 2e-6, f"{label}: {worst}"
    print(f"ok  {label}: finite differences within {worst:.1e}")


def losses_agree(o):
    """Every case without a cut path; there the numeric derivative is the gradient."""
    for name in ("dsd", "dsd-passes-align", "naive", "clean", "velocity-ema", "self-distillation", "latent-diffusion", "autoencoder"):
        case = {**DEFAULTS, **o.CASES[name]}
        d = o.draws_for(case["passes"])
        run = lambda w: losses(w, o.TARGET, d, case, latents(w, o.TARGET, d, case))[0]["total"]
        difference(run, o.ONLINE, o.NAMES, f"loss {name}", picks=1)
    # what a cut leaves: the derivative with the cut latent held still
    for name, held in (("naive-sg", "z2"), ("clean-sg", "z2"), ("dsd-input-cut", "zc")):
        case = {**DEFAULTS, **o.CASES[name]}
        d = o.draws_for(case["passes"])
        fixed = latents(o.ONLINE, o.TARGET, d, case)[held]
        free = {**case, "stop_gradient": False, "input_gradient": True}
        numeric = lambda w: losses(w, o.TARGET, d, free, {**latents(w, o.TARGET, d, case), held: fixed})[0]["total"]
        w = o.live(o.ONLINE)
        total = losses(w, o.TARGET, d, case, latents(w, o.TARGET, d, case))[0]["total"]
        found = dict(zip(o.NAMES, torch.autograd.grad(total, [w[n] for n in o.NAMES], allow_unused=True)))
        difference(numeric, o.ONLINE, o.NAMES, f"loss {name}", picks=1, analytic=found)


def parts_agree(o):
    draws = o.Draws(99)
    h, z, x = draws.normal(s.batch, s.tokens, s.width), draws.normal(s.batch, s.tokens, s.latent), draws.pictures(s.batch)
    t, y = draws.uniform(s.batch), torch.tensor([0, 4, 2, 1])
    trunk_names = [n for n in o.NAMES if n.startswith("trunk.")]
    p = draws.normal(s.batch, s.tokens, s.width)
    for role in range(3):
        difference(lambda w: (trunk(w, h, t, y, role)[0] * p).sum(), o.ONLINE, trunk_names, f"trunk role {role}")
    p = draws.normal(*z.shape)
    mask = draws.uniform(s.batch, s.tokens) < 0.3
    difference(lambda w: (encode(w, x, mask)[0] * p).sum(), o.ONLINE, o.NAMES, "encode", picks=1)
    inputs = {**o.ONLINE, "z": z, "t": t}
    difference(lambda w: (denoise(w, w["z"], w["t"], y)[0] * p).sum(), inputs, ["z"], "denoise by z")
    difference(lambda w: (denoise(w, w["z"], w["t"], y)[0] * p).sum(), inputs, ["t"], "denoise by t", h=1e-7)
    difference(lambda w: (decode(w, w["z"]) ** 2).sum(), inputs, ["z"], "decode by z")


def taps_agree(o):
    """The three partial derivatives add up to the derivative at z1, picture by picture where only some are masked."""
    for name, changes in o.CASES.items():
        out, case = o.loss_case(changes, True)[0], {**DEFAULTS, **changes}
        zero, rows = torch.zeros(s.batch, 1, 1, dtype=torch.float64), torch.ones(s.batch, 1, 1, dtype=torch.float64)
        if case["mask"]:
            rows[[1, 3]] = 0
        for term in ("reconstruction", "denoise", "align"):
            tap = {z: out.get(f"tap.{term}.{z}", zero) for z in ("z1", "zc", "z2")}
            whole = tap["z1"] + rows * tap["zc"] + tap["z2"]
            if not case["frozen_encoder"]:
                assert (whole - out.get(f"latent.{term}.z1", zero)).abs().max() < 1e-15, (name, term)
    print("ok  gradients at the latents")


def formulas_agree(o):
    draws = o.Draws(98)
    # rope: scores of a query and a key depend on their distance alone
    q, k = (draws.normal(1, 1, 1, s.head).expand(1, s.tokens, 1, s.head) for _ in range(2))
    score = torch.einsum("bnhe,bmhe->nm", rope(q), rope(k))
    assert abs(score[0, 5] - score[10, 15]) < 1e-12 and abs(score[1, 6] - score[4, 9]) < 1e-12 and abs(score[0, 1] - score[1, 0]) > 1e-3
    assert torch.equal(rope(q)[:, 0], q[:, 0])
    e = time_embedding(torch.tensor([0.5], dtype=torch.float64))[0]
    expected = {0: math.cos(500), 128: math.sin(500), 127: math.cos(500 * 10000 ** (-127 / 128))}
    assert all(abs(e[i] - value) < 1e-12 for i, value in expected.items())
    # the block against PyTorch's own attention and activations
    w, h, m = o.ONLINE, draws.normal(2, s.tokens, s.width), torch.zeros(2, 6, s.width, dtype=torch.float64)
    flat = {**w, "trunk.blocks.0.table": torch.zeros(6, s.width, dtype=torch.float64)}
    q, k, v = F.linear(rms(h), w["trunk.blocks.0.qkv.weight"]).chunk(3, -1)
    q, k, v = (a.reshape(2, s.tokens, s.heads, s.head) for a in (q, k, v))
    unit = lambda a, n: rope(a / torch.sqrt(a.pow(2).mean(-1, keepdim=True) + EPS) * w[f"trunk.blocks.0.{n}.weight"]).transpose(1, 2)
    scores = (unit(q, "q_norm") @ unit(k, "k_norm").transpose(2, 3)) / 4
    attended = (torch.softmax(scores, -1) @ v.transpose(1, 2)).transpose(1, 2).reshape(2, s.tokens, s.width)
    y = h + F.linear(attended, w["trunk.blocks.0.proj.weight"])
    u, g = F.linear(rms(y), w["trunk.blocks.0.gate_up.weight"]).chunk(2, -1)
    y = y + F.linear(F.silu(u) * g, w["trunk.blocks.0.down.weight"])
    assert (block(flat, 0, h, m) - y).abs().max() < 1e-12
    pictures = draws.pictures(2)
    z, raw = (encode(w, pictures, None, norm)[0] for norm in (True, False))
    assert (F.layer_norm(raw, (s.latent,), eps=EPS) - z).abs().max() < 1e-12
    # last Euler step of a clean network lands on its prediction
    z0, labels = draws.normal(s.batch, s.tokens, s.latent), torch.tensor([0, 1, 2, 3])
    states = sample(w, z0, labels, "euler", 4, "clean", 1, (0.1, 1))
    last = torch.full((s.batch,), o.grid(4)[3], dtype=torch.float64)
    assert (states[-1] - denoise(w, states[-2], last, labels)[0]).abs().max() < 1e-12
    # Heun on dz/dt by both parametrisations of one network is one method
    out, _ = o.identity_case()
    assert (out["shared.velocity_loss"] / out["shared.weighted_clean_loss"] - 1).abs().max() < 1e-12
    t = out["t"][:, None, None]
    assert (out["unshared.clean_error"] - (1 - t) * out["unshared.velocity_error"] - out["unshared.extra"]).abs().max() < 1e-12
    print("ok  rope, time embedding, block, latent norm, last step, figure 3")


def measures_agree(o):
    out, _ = measures.optimizer(o.Draws(40))
    for name, decay in (("plain", 0.0), ("decay", 0.01)):
        p = {k: torch.nn.Parameter(out[f"start.{k}"].clone()) for k in "abc"}
        step_by = torch.optim.AdamW(p.values(), lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay)
        average = {k: v.detach().clone() for k, v in p.items()}
        for step in range(1, 6):
            for k in p:
                p[k].grad = out[f"step{step}.grad.{k}"].clone()
            torch.nn.utils.clip_grad_norm_(list(p.values()), 1.0)
            step_by.step()
            for k in p:
                average[k].lerp_(p[k].detach(), 0.01)
                assert (p[k] - out[f"{name}.step{step}.param.{k}"]).abs().max() < 1e-13
                assert (average[k] - out[f"{name}.step{step}.average.{k}"]).abs().max() < 1e-13
    out, _ = measures.lpips(o.Draws(41))
    weights = {k[8:]: v for k, v in out.items() if k.startswith("weights.")}
    x = {"x": out["x"].detach()}
    difference(lambda w: measures.lpips_value({**weights}, w["x"], out["y"]).sum(), x, ["x"], "lpips", picks=12, h=1e-6)
    out, _ = measures.statistics(o.Draws(42))
    assert 1 < out["rank.value"] < 5 and 0.2 < out["precision.value"] < 0.97 and 0.2 < out["recall.value"] < 0.97
    assert abs(measures.frechet(out["features.real"], out["features.real"])) < 1e-10
    even = torch.linalg.qr(o.Draws(1).normal(64, 5))[0]
    even = torch.linalg.qr(even - even.mean(0))[0]
    assert abs(measures.effective_rank(even) - 5) < 1e-10
    eigen = torch.linalg.eigvals(torch.cov(out["features.real"].t()) @ torch.cov(out["features.fake"].t())).real.sqrt().sum()
    s1, s2 = (torch.cov(out[f"features.{n}"].t()) for n in ("real", "fake"))
    mean = out["features.real"].mean(0) - out["features.fake"].mean(0)
    assert abs(mean @ mean + s1.trace() + s2.trace() - 2 * eigen - out["frechet.value"]) < 1e-10
    exact, near = measures.patch_pca(out["pictures.fit"], out["pictures.test"], 4, 48)
    assert (exact - near).abs().max() < 1e-10
    print("ok  AdamW, clipping, average, effective rank, Frechet distance, PCA; PSNR",
          [round(float(out[k]), 3) for k in ("psnr.value", "pca5.psnr", "pca16.psnr", "precision.value", "recall.value", "rank.value")])


def run(o):
    taps_agree(o)
    formulas_agree(o)
    measures_agree(o)
    parts_agree(o)
    losses_agree(o)

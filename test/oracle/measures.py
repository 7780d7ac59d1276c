"""Optimiser, perceptual distance and the statistics of evaluation: the part of the oracle that needs no DSD network."""
import json

import numpy
import torch
import torch.nn.functional as F


def clip(grads, largest):
    """PyTorch's clip_grad_norm_: its 1e-6 beside the norm included."""
    norm = torch.sqrt(sum((g * g).sum() for g in grads))
    return torch.clamp(largest / (norm + 1e-6), max=1.0), norm


def optimizer(draws):
    lr, beta1, beta2, eps, decay = 0.01, 0.9, 0.95, 1e-8, 0.99
    shapes, out = {"a": (3, 4), "b": (5,), "c": (2, 3, 2)}, {}
    start = {k: draws.normal(*v) for k, v in shapes.items()}
    # norms on both sides of 1: steps that are clipped and steps that are not
    grads = [{k: draws.normal(*v, scale=scale) for k, v in shapes.items()} for scale in (1.0, 0.05, 3.0, 0.1, 0.5)]
    out.update({f"start.{k}": v for k, v in start.items()})
    for step, g in enumerate(grads, 1):
        out.update({f"step{step}.grad.{k}": v for k, v in g.items()})
        out[f"step{step}.scale"], out[f"step{step}.norm"] = clip(list(g.values()), 1.0)
    for name, weight_decay in (("plain", 0.0), ("decay", 0.01)):
        p, average = {k: v.clone() for k, v in start.items()}, {k: v.clone() for k, v in start.items()}
        first, second = ({k: torch.zeros_like(v) for k, v in start.items()} for _ in range(2))
        for step, g in enumerate(grads, 1):
            scale = out[f"step{step}.scale"]
            for k in p:
                gradient = g[k] * scale
                p[k] = p[k] * (1 - lr * weight_decay)
                first[k] = beta1 * first[k] + (1 - beta1) * gradient
                second[k] = beta2 * second[k] + (1 - beta2) * gradient * gradient
                root = torch.sqrt(second[k] / (1 - beta2 ** step)) + eps
                p[k] = p[k] - lr * (first[k] / (1 - beta1 ** step)) / root
                average[k] = average[k] + (1 - decay) * (p[k] - average[k])
                for kind, value in (("param", p), ("average", average), ("exp_avg", first), ("exp_avg_sq", second)):
                    out[f"{name}.step{step}.{kind}.{k}"] = value[k]
    case = dict(lr=lr, beta1=beta1, beta2=beta2, eps=eps, clip=1.0, weight_decay={"plain": 0, "decay": 0.01}, average=decay)
    return out, {"case": json.dumps(case)}


VGG = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))     # convolutions of torchvision's vgg16.features, by stage
WIDTHS = (4, 6, 8, 8, 8)                                            # in place of 64, 128, 256, 512, 512


def lpips_value(w, x, y):
    """(B, 3, H, W) twice, in [-1, 1] -> (B)."""
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=x.dtype)[None, :, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=x.dtype)[None, :, None, None]
    a, b, total = (x - shift) / scale, (y - shift) / scale, 0
    for stage, numbers in enumerate(VGG):
        if stage:
            a, b = F.max_pool2d(a, 2), F.max_pool2d(b, 2)
        for i in numbers:
            a, b = (torch.relu(F.conv2d(h, w[f"features.{i}.weight"], w[f"features.{i}.bias"], padding=1)) for h in (a, b))
        unit = [h / (torch.sqrt((h * h).sum(1, keepdim=True)) + 1e-10) for h in (a, b)]
        total = total + F.conv2d((unit[0] - unit[1]) ** 2, w[f"lin{stage}.model.1.weight"]).mean((1, 2, 3))
    return total


def lpips(draws):
    w, before = {}, 3
    for stage, numbers in enumerate(VGG):
        for i in numbers:
            w[f"features.{i}.weight"] = draws.normal(WIDTHS[stage], before, 3, 3, scale=(2 / (9 * before)) ** 0.5)
            # positive: no position may have all its channels off, where the unit norm has no gradient
            w[f"features.{i}.bias"] = draws.normal(WIDTHS[stage], scale=0.1, centre=0.5)
            before = WIDTHS[stage]
        w[f"lin{stage}.model.1.weight"] = draws.uniform(1, WIDTHS[stage], 1, 1)
    x = (2 * draws.uniform(2, 3, 16, 16) - 1).requires_grad_()
    y = 2 * draws.uniform(2, 3, 16, 16) - 1
    value = lpips_value(w, x, y)
    out = {"x": x, "y": y, "value": value, "grad.x": torch.autograd.grad(value.sum(), x)[0]}
    out.update({f"weights.{k}": v for k, v in w.items()})
    return out, {"case": json.dumps({"layout": "NCHW", "range": [-1, 1], "gradient": "of the sum of the values"})}


def effective_rank(latents):
    """Exponential of the entropy of the singular values of the centred matrix with tokens (..., C) as rows."""
    rows = latents.reshape(-1, latents.shape[-1])
    values = torch.linalg.svdvals(rows - rows.mean(0))
    p = values / values.sum()
    return torch.exp(-(p * torch.log(p)).sum())


def psnr(x, y):
    """Decibels from the squared error pooled over all values; the range is 2, from -1 to 1."""
    return 10 * torch.log10(4 / ((x - y) ** 2).mean())


def patches(x, p):
    n = x.shape[1] // p
    return x.reshape(-1, n, p, n, p, x.shape[3]).permute(0, 1, 3, 2, 4, 5).reshape(-1, p * p * x.shape[3])


def patch_pca(fit, test, p, components):
    """Reconstruction of `test` (as patches) by the mean and the first principal components of the patches of `fit`."""
    a, b = patches(fit, p), patches(test, p)
    mean = a.mean(0)
    basis = torch.linalg.eigh((a - mean).t() @ (a - mean))[1][:, -components:]
    return b, mean + (b - mean) @ basis @ basis.t()


def frechet(a, b):
    """Frechet distance of the Gaussians of two feature sets (rows), covariances over n - 1."""
    a, b = a.numpy(), b.numpy()
    s1, s2 = numpy.cov(a, rowvar=False), numpy.cov(b, rowvar=False)
    values, vectors = numpy.linalg.eigh(s1)
    root = (vectors * numpy.sqrt(numpy.maximum(values, 0))) @ vectors.T
    cross = numpy.sqrt(numpy.maximum(numpy.linalg.eigvalsh(root @ s2 @ root), 0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + numpy.trace(s1) + numpy.trace(s2) - 2 * cross)


def covered(points, manifold, k):
    """Share of the points that lie within some manifold point's distance to its k-th other neighbour."""
    radius = torch.cdist(manifold, manifold, compute_mode="donot_use_mm_for_euclid_dist").sort(1)[0][:, k]
    near = torch.cdist(points, manifold, compute_mode="donot_use_mm_for_euclid_dist")
    return (near <= radius).any(1).to(torch.float64).mean()


def statistics(draws):
    out, case = {}, {}
    mixing = draws.normal(5, 5) * torch.tensor([2.0, 1.0, 0.5, 0.1, 0.01], dtype=torch.float64)[:, None]
    out["rank.latents"] = draws.normal(4, 16, 5) @ mixing + draws.normal(5)
    out["rank.value"] = effective_rank(out["rank.latents"])
    fit, test = draws.pictures(12), draws.pictures(6)
    out["pictures.fit"], out["pictures.test"] = fit, test
    out["psnr.other"] = torch.clamp(test + draws.normal(*test.shape, scale=0.1), -1, 1)
    out["psnr.value"] = psnr(test, out["psnr.other"])
    for components in (5, 16):
        exact, near = patch_pca(fit, test, 4, components)
        out[f"pca{components}.psnr"] = psnr(exact, near)
        if components == 5:
            out["pca5.patches"] = near
    real, fake = draws.normal(90, 4), draws.normal(70, 4) * torch.tensor([0.6, 1.0, 1.3, 0.8], dtype=torch.float64) + 0.4
    out["features.real"], out["features.fake"] = real, fake
    out["frechet.value"] = torch.tensor(frechet(real, fake), dtype=torch.float64)
    out["precision.value"], out["recall.value"] = covered(fake, real, 3), covered(real, fake, 3)
    case.update(psnr="pooled, range 2", pca="patches of 4 x 4 x 3 as rows", frechet="covariance over n - 1", neighbours=3,
                precision="share of fake within real", recall="share of real within fake")
    return out, {"case": json.dumps(case)}

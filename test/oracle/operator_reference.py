"""What every method and function of src/torch means, in Python's PyTorch: the TypeScript's arguments in the TypeScript's order."""
import math

import numpy
import torch
import torch.nn.functional as F

from operators import DTYPES, Big


def s(value):
    """A number as an operand is a double, a bigint an integer."""
    if isinstance(value, torch.Tensor):
        return value
    return int(value) if isinstance(value, Big) else float(value)


def dims(dim):
    return None if dim is None else dim if isinstance(dim, list) else [dim]


def shape(*sizes):
    return sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list) else list(sizes)


def made(options):
    """dtype and requiresGrad of a factory's options."""
    options = options or {}
    return {"dtype": DTYPES[options.get("dtype", "float32")], "requires_grad": options.get("requiresGrad") or False}


def dtype_of(options):
    return DTYPES[options["dtype"]] if options and "dtype" in options else None


def of_all(x, dim):
    return list(range(x.ndim)) if dim is None else dims(dim)


def to(x, options):
    dtype, copy = options.get("dtype"), options.get("copy", False)
    return x.to(DTYPES[dtype] if dtype else x.dtype, copy=copy)


def to_array(x):
    x = x.detach()
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.float()
    return (x.to(torch.uint8) if x.dtype == torch.bool else x).contiguous().numpy()


def clamp(x, low=None, high=None):
    return torch.clamp(x, min=low, max=high)


def tensor(data, size=None, options=None):
    options = {"dtype": str(data.dtype) if isinstance(data, numpy.ndarray) else "float32", **(options or {})}
    return torch.tensor(data, **made(options)).reshape([len(data)] if size is None else size)


def arange(first, second=None, step=1, last=None):
    if isinstance(second, dict) or second is None:
        return torch.arange(0, first, 1, **made(second))
    return torch.arange(first, second, 1 if step is None else step, **made(last))


def where(condition, yes, no):
    like = no if not isinstance(yes, torch.Tensor) else yes
    dtype = like.dtype if isinstance(like, torch.Tensor) else torch.float32
    side = lambda v: v if isinstance(v, torch.Tensor) else torch.tensor(v, dtype=dtype)
    return torch.where(condition, side(yes), side(no))


def rms_norm(x, weight=None, eps=1e-6):
    y = x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def attention(q, k, v):
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), -1) @ v


def cross_entropy(logits, target, options=None):
    options = options or {}
    return F.cross_entropy(logits, target, reduction=options.get("reduction", "mean"), label_smoothing=options.get("labelSmoothing", 0.0))


def step_numbers(norm, step, rates, o):
    step.add_(float(torch.isfinite(norm)))
    t, (rate, target, average) = step.item(), rates.double().tolist()
    return torch.tensor([float(torch.isfinite(norm)), max(1, (norm.item() + 1e-6) / o["clip"]), rate, rate * o["weightDecay"],
                         rate / (1 - o["beta1"] ** t), (1 - o["beta2"] ** t) ** -0.5, target, average], dtype=torch.float64)


def update(parameters, gradients, numbers, o):
    """One parameter at a time, by torch.optim.AdamW where there are moments."""
    if len(parameters) != len(gradients):
        raise ValueError("lengths")
    finite, divisor, rate, decay, size, _, target_share, average_share = numbers.tolist()
    for p, g in zip(parameters, gradients):
        weight = p["weight"]
        if g is not None and g.shape != weight.shape:
            raise ValueError("shapes")
        if g is None or not finite:
            pass
        elif "moments" in p:
            leaf = torch.nn.Parameter(weight)
            leaf.grad = g.to(weight.dtype) / divisor
            taken = round(math.log(1 - rate / size) / math.log(o["beta1"])) - 1
            optimizer = torch.optim.AdamW([leaf], lr=rate, betas=(o["beta1"], o["beta2"]), eps=o["eps"], weight_decay=decay / rate)
            optimizer.state[leaf] = {"step": torch.tensor(float(taken)), "exp_avg": p["moments"][0], "exp_avg_sq": p["moments"][1]}
            optimizer.step()
        else:
            weight.sub_(rate * p.get("scale", 1) * g + decay * weight)
        for average, share in (("target", target_share), ("average", average_share)):
            if average in p:
                p[average].lerp_(weight, share)
        for copy, of in (("copy", "weight"), ("targetCopy", "target")):
            if copy in p:
                p[copy].copy_(p[of])


def muon_direction(gradients, momentum, numbers, keep, dtype):
    g = torch.cat([g.reshape(-1, *momentum.shape[1:]) for g in gradients]).to(momentum.dtype) / numbers[1]
    if g.shape != momentum.shape:
        raise ValueError("sizes")
    if not numbers[0]:
        return torch.zeros_like(momentum).to(getattr(torch, dtype))
    momentum.lerp_(g, 1 - keep)
    direction = g.lerp(momentum, keep)
    return (direction / (torch.linalg.matrix_norm(direction, keepdim=True) + 1e-7)).to(getattr(torch, dtype))


def quintic(square, x, a, b, c):
    if square.shape != x.shape or square.dtype != x.dtype:
        raise ValueError("differ")
    square.copy_(a * torch.eye(square.shape[-1]).double() + b * x.double() + c * square.double())


def grad_norm(grads):
    grads = [g for g in grads if g is not None]
    total = torch.sqrt(sum((g.double() ** 2).sum() for g in grads))
    return total if grads[0].dtype == torch.float64 else total.float()


def philox(counter, key):
    """Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, 2011)."""
    c, k, mask = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & mask, (a >> 32) ^ c[3] ^ k[1], a & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]       # a published answer


def draws(normal):
    def run(key, first, size, options=None):
        base = int(first.item()) if isinstance(first, torch.Tensor) else first
        out = numpy.zeros((size[0], int(numpy.prod(size[1:]))))
        for image in range(out.shape[0]):
            at = base + image
            for e in range(out.shape[1]):
                w = philox((e // 4, 0, at & 0xFFFFFFFF, at >> 32), (key["lo"], key["hi"]))
                pair = w[e % 4 // 2 * 2: e % 4 // 2 * 2 + 2]
                angle, radius = 2 * math.pi * (pair[1] >> 8) * 2.0 ** -24, math.sqrt(-2 * math.log(((pair[0] >> 8) + 1) * 2.0 ** -24))
                wave = math.sin(angle) if e % 2 else math.cos(angle)
                out[image, e] = radius * wave if normal else (w[e % 4] >> 8) * 2.0 ** -24
        dtype = DTYPES[(options or {}).get("dtype", "float32")]
        return torch.from_numpy(out).float().to(dtype).reshape(size)
    return run


def pool(function):
    def run(x, kernel, stride=None, padding=0, count=None):
        more = {} if count is None else {"count_include_pad": count}
        return function(x, kernel, kernel if stride is None else stride, 0 if padding is None else padding, **more)
    return run


def conv2d(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    one = lambda v, default: default if v is None else v
    return F.conv2d(x, w, bias, one(stride, 1), one(padding, 0), one(dilation, 1), one(groups, 1))


def batch_norm(x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    return F.batch_norm(x, mean, var, weight, bias, bool(training), 0.1 if momentum is None else momentum, 1e-5 if eps is None else eps)


def or_else(value, default):
    return default if value is None else value


METHODS = {
    "item": lambda x: x.item(), "toArray": to_array, "to": to, "detach": lambda x: x.detach(), "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.contiguous(), "requiresGrad_": lambda x, on=True: x.requires_grad_(True if on is None else on),
    "maskedFill": lambda x, mask, v: x.masked_fill(mask, s(v)),
    "lerp": lambda x, end, w: torch.lerp(x, end, w if isinstance(w, torch.Tensor) else float(w)),
    "clamp": clamp, "gelu": lambda x, approximate=None: F.gelu(x, approximate=approximate or "none"),
    "isfinite": lambda x: torch.isfinite(x), "silu": F.silu,
    "logicalAnd": torch.logical_and, "logicalOr": torch.logical_or, "logicalNot": torch.logical_not,
    "matmul": torch.matmul, "softmax": lambda x, dim: torch.softmax(x, dim), "logSoftmax": lambda x, dim: torch.log_softmax(x, dim),
    "logsumexp": lambda x, dim, keep=False: torch.logsumexp(x, dims(dim), bool(keep)),
    "sum": lambda x, dim=None, keep=False: torch.sum(x, of_all(x, dim), bool(keep)),
    "mean": lambda x, dim=None, keep=False: torch.mean(x, of_all(x, dim), bool(keep)),
    "std": lambda x, dim=None, keep=False, correction=1: torch.std(x, dims(dim), correction=or_else(correction, 1), keepdim=bool(keep)),
    "var": lambda x, dim=None, keep=False, correction=1: torch.var(x, dims(dim), correction=or_else(correction, 1), keepdim=bool(keep)),
    "norm": lambda x, p=2, dim=None, keep=False: torch.linalg.vector_norm(x, or_else(p, 2), dims(dim), bool(keep)),
    "all": lambda x: torch.all(x), "any": lambda x: torch.any(x),
    "max": lambda x, dim=None, keep=False: torch.max(x) if dim is None else tuple(torch.max(x, dim, bool(keep))),
    "min": lambda x, dim=None, keep=False: torch.min(x) if dim is None else tuple(torch.min(x, dim, bool(keep))),
    "amax": lambda x, dim=None, keep=False: torch.amax(x, dims(dim) or [], bool(keep)),
    "amin": lambda x, dim=None, keep=False: torch.amin(x, dims(dim) or [], bool(keep)),
    "argmax": lambda x, dim=None, keep=False: torch.argmax(x, dim, bool(keep)),
    "argmin": lambda x, dim=None, keep=False: torch.argmin(x, dim, bool(keep)),
    "argsort": lambda x, dim=-1, descending=False: torch.argsort(x, or_else(dim, -1), bool(descending)),
    "sort": lambda x, dim=-1, descending=False: tuple(torch.sort(x, dim=or_else(dim, -1), descending=bool(descending))),
    "topk": lambda x, k, dim=-1, largest=True: tuple(torch.topk(x, k, or_else(dim, -1), or_else(largest, True))),
    "cumsum": lambda x, dim: torch.cumsum(x, dim),
    "view": lambda x, *n: x.view(shape(*n)), "reshape": lambda x, *n: x.reshape(shape(*n)), "permute": lambda x, *n: x.permute(shape(*n)),
    "transpose": lambda x, a, b: x.transpose(a, b), "flatten": lambda x, a=0, b=-1: torch.flatten(x, or_else(a, 0), or_else(b, -1)),
    "unsqueeze": lambda x, dim: x.unsqueeze(dim), "squeeze": lambda x, dim=None: x.squeeze() if dim is None else x.squeeze(dim),
    "expand": lambda x, *n: x.expand(shape(*n)), "repeat": lambda x, *n: x.repeat(shape(*n)),
    "repeatInterleave": lambda x, n, dim=None: torch.repeat_interleave(x, n, dim=dim),
    "narrow": lambda x, dim, start, length: x.narrow(dim, start, length), "select": lambda x, dim, index: x.select(dim, index),
    "slice": lambda x, dim, start=None, end=None, step=1: torch.ops.aten.slice(x, dim, start, end, or_else(step, 1)),
    "index": lambda x, indices: torch.ops.aten.index(x, indices),
    "indexSelect": lambda x, dim, index: torch.index_select(x, dim, index), "gather": lambda x, dim, index: torch.gather(x, dim, index),
    "chunk": lambda x, n, dim=0: list(torch.chunk(x, n, or_else(dim, 0))),
    "split": lambda x, n, dim=0: list(torch.split(x, n, or_else(dim, 0))), "unbind": lambda x, dim=0: list(torch.unbind(x,
            or_else(dim, 0))),
    "flip": lambda x, *n: torch.flip(x, shape(*n)), "tril": lambda x, d=0: torch.tril(x, or_else(d, 0)),
    "diagonal": lambda x, o=0, a=0, b=1: torch.diagonal(x, or_else(o, 0), or_else(a, 0), or_else(b, 1)),
    "copy_": lambda x, y: x.copy_(y), "zero_": lambda x: x.zero_(), "fill_": lambda x, v: x.fill_(s(v)),
    "clamp_": lambda x, low=None, high=None: x.clamp_(min=low, max=high),
    "lerp_": lambda x, end, w: x.lerp_(end, w if isinstance(w, torch.Tensor) else float(w)),
}
BINARY = ("add", "sub", "mul", "div", "pow", "remainder", "lt", "le", "gt", "ge", "eq", "ne")
for name in BINARY:
    METHODS[name] = lambda x, other, f=getattr(torch, name): f(x, s(other))
for name in ("add_", "sub_", "mul_", "div_"):
    METHODS[name] = lambda x, other, f=getattr(torch.Tensor, name): f(x, s(other))
UNARY = ("neg", "exp", "log", "sqrt", "rsqrt", "abs", "square", "sign", "round", "floor", "erf", "erfinv", "sigmoid", "relu", "tanh",
         "cos", "sin")
for name in UNARY:
    METHODS[name] = getattr(torch, name)

FUNCTIONS = {
    "tensor": tensor, "empty": lambda n, o=None: torch.empty(n, **made(o)), "zeros": lambda n, o=None: torch.zeros(n, **made(o)),
    "ones": lambda n, o=None: torch.ones(n, **made(o)), "full": lambda n, v, o=None: torch.full(n, s(v), **made(o)), "arange": arange,
    "linspace": lambda a, b, n, o=None: torch.linspace(a, b, n, **made(o)), "eye": lambda n, o=None: torch.eye(n, **made(o)),
    "zerosLike": lambda x, o=None: torch.zeros_like(x, dtype=dtype_of(o)),
    "onesLike": lambda x, o=None: torch.ones_like(x, dtype=dtype_of(o)),
    "fullLike": lambda x, v, o=None: torch.full_like(x, s(v), dtype=dtype_of(o)),
    "cat": lambda xs, dim=0: torch.cat(xs, or_else(dim, 0)), "stack": lambda xs, dim=0: torch.stack(xs, or_else(dim, 0)), "where": where,
    "minimum": torch.minimum, "maximum": torch.maximum,
    "addcmul": lambda a, b, c, value=1: torch.addcmul(a, b, c, value=or_else(value, 1)), "oneHot": lambda x, n: F.one_hot(x, n),
    "einsum": lambda equation, xs: torch.einsum(equation, *xs), "linear": lambda x, w, b=None: F.linear(x, w, b),
    "embedding": lambda w, i: F.embedding(i, w),
    "layerNorm": lambda x, n, w=None, b=None, eps=1e-5: F.layer_norm(x, n, w, b,
            or_else(eps, 1e-5)), "conv2d": conv2d, "exactConv2d": conv2d, "batchNorm": batch_norm,
    "avgPool2d": pool(F.avg_pool2d), "maxPool2d": pool(F.max_pool2d), "adaptiveAvgPool2d": lambda x, n: F.adaptive_avg_pool2d(x, n),
    "upsampleBilinear2d": lambda x, n: F.interpolate(x, n, mode="bilinear", align_corners=False), "crossEntropy": cross_entropy,
    "l1Loss": lambda x, y, r="mean": F.l1_loss(x, y, reduction=or_else(r, "mean")),
    "mseLoss": lambda x, y, r="mean": F.mse_loss(x, y, reduction=or_else(r, "mean")),
    "cosineSimilarity": lambda a, b, dim=1, eps=1e-8: F.cosine_similarity(a, b, or_else(dim, 1), or_else(eps, 1e-8)),
    "svdvals": torch.linalg.svdvals, "eigh": lambda m: tuple(torch.linalg.eigh(m)),
    "cdist": lambda a, b: torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist"),
    "rmsNorm": rms_norm, "scaledDotProductAttention": attention, "gradNorm": grad_norm, "stepNumbers": step_numbers,
    "update_": update, "muonDirection": muon_direction, "quintic_": quintic,
    "rand": draws(False), "randn": draws(True),
}

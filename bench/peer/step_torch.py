"""The demo model's training step in idiomatic PyTorch, for `dsd bench` to measure itself against: the same network, losses and optimizer.

It answers requests on stdin, one a line, each with one line of JSON:

    hello                         versions, threads
    step float32|bfloat16 N       milliseconds of each of N training steps (state is kept between requests)
    call NAME                     nanoseconds of a call of an operator on one number
    product float32|bfloat16      GFLOP/s of a square matrix product

    echo 'step float32 5' | python3 step_torch.py --threads 2

What differs from ours: torch's own generator draws the noise, the time features are float32, there is one average of the weights (ours keeps
a second one to sample from), and the training heads that this recipe does not use are not there.
"""
import argparse, copy, json, math, sys, time
import torch, torch.nn as nn, torch.nn.functional as F


def rms(x, weight=None):
    x = x.float()
    if hasattr(F, 'rms_norm'):
        return F.rms_norm(x, x.shape[-1:], weight, 1e-6)
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    return x if weight is None else x * weight


def rope(side, head):
    """cos and sin (N, head / 2): the first half of the pairs turns with the row, the second with the column."""
    frequency = 10000 ** (-torch.arange(head // 4) / (head // 4))
    angle = torch.arange(side)[:, None] * frequency
    rows, columns = angle[:, None].expand(side, side, -1), angle[None].expand(side, side, -1)
    both = torch.cat([rows, columns], -1).reshape(side * side, -1)
    return both.cos(), both.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.q_norm = nn.Parameter(torch.ones(width // heads))
        self.k_norm = nn.Parameter(torch.ones(width // heads))
        self.table = nn.Parameter(torch.zeros(6, width))

    def attend(self, x, cos, sin):
        B, N, d = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        q = rotate(rms(q, self.q_norm), cos, sin).to(v.dtype)
        k = rotate(rms(k, self.k_norm), cos, sin).to(v.dtype)
        if hasattr(F, 'scaled_dot_product_attention'):
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = (q * q.size(-1) ** -0.5 @ k.transpose(-1, -2)).softmax(-1).to(v.dtype) @ v
        return self.proj(out.transpose(1, 2).reshape(B, N, d))

    def forward(self, x, modulation, cos, sin):
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).chunk(6, 1)
        x = x + (1 + gate1) * self.attend(rms(x) * (1 + scale1) + shift1, cos, sin)
        up, gate = self.gate_up(rms(x) * (1 + scale2) + shift2).chunk(2, -1)
        return x + (1 + gate2) * self.down(F.silu(up) * gate)


class DSD(nn.Module):
    """One ViT in three roles; x (B, H, H, 3), z (B, N, C)."""

    def __init__(self, width=128, depth=6, heads=4, hidden=320, image=32, patch=4, latent=16, classes=9):
        super().__init__()
        self.width, self.patch, self.latent, self.classes, self.side = width, patch, latent, classes, image // patch
        self.patch_in, self.patch_out = nn.Linear(3 * patch**2, width), nn.Linear(width, 3 * patch**2)
        self.latent_in, self.latent_out, self.denoise_out = nn.Linear(latent, width), nn.Linear(width, latent), nn.Linear(width, latent)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.label, self.role = nn.Embedding(classes + 1, width), nn.Embedding(3, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        cos, sin = rope(self.side, width // heads)
        self.register_buffer('cos', cos)
        self.register_buffer('sin', sin)
        self.register_buffer('frequency', torch.exp(-math.log(10000) * torch.arange(128) / 128))
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if getattr(module, 'bias', None) is not None:
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.modulation.weight)

    def trunk(self, x, t, y, role):
        angle = 1000 * t[:, None] * self.frequency
        condition = self.time(torch.cat([angle.cos(), angle.sin()], -1)) + self.label(y) + self.role.weight[role]
        modulation = self.modulation(F.silu(condition)).view(-1, 6, self.width).float()
        for block in self.blocks:
            x = block(x, modulation, self.cos, self.sin)
        return rms(x)

    def unconditional(self, x):
        return x.new_ones(len(x)), torch.full((len(x),), self.classes)

    def encode(self, x):
        n, p = self.side, self.patch
        patches = x.view(-1, n, p, n, p, 3).permute(0, 1, 3, 2, 4, 5).reshape(-1, n * n, 3 * p * p)
        return F.layer_norm(self.latent_out(self.trunk(self.patch_in(patches), *self.unconditional(x), 0)).float(), (self.latent,), eps=1e-6)

    def denoise(self, z, t, y):
        return self.denoise_out(self.trunk(self.latent_in(z), t, y, 1)).float()

    def decode(self, z):
        n, p = self.side, self.patch
        patches = self.patch_out(self.trunk(self.latent_in(z), *self.unconditional(z), 2)).float()
        return patches.view(-1, n, n, p, p, 3).permute(0, 1, 3, 2, 4, 5).reshape(-1, n * p, n * p, 3)


class Trainer:
    """L1 reconstruction and 0.3 times the clean-latent loss; AdamW with clipping; an average of the weights makes the targets."""

    def __init__(self, dtype, batch, model):
        self.bf16, self.batch = dtype == 'bfloat16', batch
        self.model = DSD(**model)
        self.target = copy.deepcopy(self.model).requires_grad_(False)
        self.parameters, self.average = list(self.model.parameters()), list(self.target.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, foreach=True)
        self.images = torch.randint(0, 256, (batch, self.model.side * self.model.patch, self.model.side * self.model.patch, 3), dtype=torch.uint8)
        self.labels = torch.randint(0, self.model.classes, (batch,))

    def loss(self, x, y):
        with torch.no_grad():
            goal = self.target.encode(x)
        z = self.model.encode(x)
        B = len(x)
        s = torch.where(torch.rand(B, 1, 1) < 0.5, 0.7 + 0.3 * torch.rand(B, 1, 1), torch.ones(()))
        reconstruction = F.l1_loss(self.model.decode(s * z + (1 - s) * torch.randn_like(z)), x)
        t = torch.sigmoid(torch.randn(B))
        t = 0.71 * t / (1 - 0.29 * t)
        noisy = t[:, None, None] * z + (1 - t[:, None, None]) * torch.randn_like(z)
        asked = torch.where(torch.rand(B) < 0.1, self.model.classes, y)
        return reconstruction + 0.3 * F.mse_loss(self.model.denoise(noisy, t, asked), goal)

    def step(self):
        x = self.images.float() / 127.5 - 1
        with torch.autocast('cpu', torch.bfloat16, enabled=self.bf16):
            loss = self.loss(x, self.labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_mul_(self.average, 0.99)
            torch._foreach_add_(self.average, self.parameters, alpha=0.01)


def milliseconds(work, times):
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        took.append((time.perf_counter() - begun) * 1e3)
    return took


def call(name):
    x = torch.ones(1)
    tracked = torch.ones(1, requires_grad=True)
    work = dict(add=lambda: x + x, tracked=lambda: tracked + tracked, view=lambda: x.view(1, 1), cat=lambda: torch.cat([x, x, x, x]))[name]

    def many():
        for _ in range(1000):
            work()

    return min(milliseconds(many, 20)) * 1e3


@torch.no_grad()
def product(dtype, side=1024):
    a = torch.full((side, side), 0.5, dtype=getattr(torch, dtype))
    return 2 * side**3 / min(milliseconds(lambda: a @ a, 20)) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--model', type=json.loads, default={}, help='sizes of the network other than the demo model, as JSON')
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    trainers = {}

    def steps(dtype, count):
        if dtype not in trainers:
            trainers[dtype] = Trainer(dtype, options.batch, options.model)
        return milliseconds(trainers[dtype].step, int(count))

    answer = dict(
        hello=lambda: dict(torch=torch.__version__, python=sys.version.split()[0], threads=torch.get_num_threads()),
        step=steps,
        call=call,
        product=product,
    )
    for line in sys.stdin:
        name, *words = line.split()
        print(json.dumps(answer[name](*words)), flush=True)


main()

"""What a backtracking step costs beside a plain PyTorch training step of the same networks, side by side in one run.

    python benchmarks/step.py [--threads 1] [--repeats 30] [--out benchmarks/results/step.csv]

`plain` is the training step of any tutorial: torch.optim.SGD, two `.backward()`, simultaneous updates, generator run once.
`step` is ours, `backtrack` scores all instances of a batch on one metric, `backtrack × 2` on two; `backtrack, PyTorch layers`
differentiates PyTorch's own convolutions and norms twice; `compiled` is `GAN(compiled=True)`, for the small networks that
it is meant for. The rows take turns, so a slow moment of the machine hits all of
them; the ratio is that of medians.
"""
import argparse
import platform
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import pandas as pd
import torch
import torch.nn.functional as F

from gan_influence.all import DCGAN, FCGAN, GAN, Batch, backtrack, map_tensors


def plain_step(G, D, x, z):
    "A training step as in any PyTorch tutorial"
    opt_g, opt_d = torch.optim.SGD(G.parameters(), 1e-3), torch.optim.SGD(D.parameters(), 1e-3)

    def step():
        fake = G(z)
        loss_d = (F.softplus(-D(x)).sum() + F.softplus(D(fake.detach())).sum()) / len(z)
        loss_g = F.softplus(-D(fake)).mean()
        opt_g.zero_grad(); loss_g.backward()
        opt_d.zero_grad(); loss_d.backward()
        opt_d.step(); opt_g.step()
    return step


def rows(name, nets, x, z_dim, repeats, compiled=False):
    "Median milliseconds of each kind of step"
    gan, z, w = GAN(*nets(), z_dim=z_dim), torch.randn(len(x), z_dim, dtype=x.dtype), torch.ones(len(x), dtype=x.dtype)
    s, b = gan.start(), Batch(1, torch.arange(len(x)), x, z)
    u = map_tensors(torch.randn_like, s)
    def by_pytorch():
        with patch('gan_influence.influence.twice', lambda values: nullcontext()): backtrack(gan, [u], s, b, w)
    kinds = {'plain': plain_step(*nets(), x, z), 'step': lambda: gan.step(s, b, w),
             'backtrack': lambda: backtrack(gan, [u], s, b, w), 'backtrack, PyTorch layers': by_pytorch, 'backtrack × 2': lambda: backtrack(gan, [u, u], s, b, w)}
    if compiled:
        fast = replace(gan, compiled=True)
        kinds |= {'step, compiled': lambda: fast.step(s, b, w), 'backtrack, compiled': lambda: backtrack(fast, [u], s, b, w)}
    times = {k: [] for k in kinds}
    for i in range(repeats + 2):
        for k, f in kinds.items():
            start = time.perf_counter(); f()
            if i > 1: times[k].append(1e3 * (time.perf_counter() - start))
    return [dict(networks=name, kind=k, median_ms=median(t), min_ms=min(t), max_ms=max(t), times_plain=median(t) / median(times['plain'])) for k, t in times.items()]


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--threads', type=int, default=torch.get_num_threads())
parser.add_argument('--repeats', type=int, default=30)
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results'/'step.csv')
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)

table = rows('FCGAN, float64', FCGAN, torch.randn(100, 2, dtype=torch.float64), 10, 10 * args.repeats, compiled=True)
for h in (8, 32): table += rows(f'DCGAN, width {h}', lambda: DCGAN(width=h), torch.rand(100, 1, 28, 28) * 2 - 1, 32, args.repeats)
table = pd.DataFrame(table).assign(threads=args.threads, torch=torch.__version__, machine=f'{platform.machine()}, {platform.system()}')
args.out.parent.mkdir(exist_ok=True)
table.to_csv(args.out, index=False)
print(table.drop(columns=['torch', 'machine']).to_string(index=False, float_format='{:.2f}'.format))

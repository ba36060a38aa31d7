"""Every combination of scheme, optimiser, penalty or batch norms, and average: scores against finite differences of real retraining.

    python benchmarks/exactness.py

The fully connected GAN in float64, 12 points, 9 steps, three metrics (ALL, the mean of the output, the discriminator's
loss), unequal rates, L2 on. An error is the largest over instances and metrics, relative to the largest score. Central
differences of sixth order, by Richardson from those over e, 2e and 4e, are themselves wrong by the response's curvature
(less for a smaller change of the weight) and by rounding (less for a larger one), so they are taken over e = 1e-7, 2e-7,
4e-7, … 5e-5, and the smallest error counts: a wrong derivative is near none of them. Writes results/exactness.csv, a row
per combination as soon as it is known; all take half an hour.
"""
import argparse
import itertools
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from gan_influence.all import (ALL, FCGAN, GAN, R1, R2, SGD, WGANGP, Adam, AdamW, Clipped, DiscriminatorLoss, InverseSqrt,
                               Metric, RMSprop, finite_differences, influence, train)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results'/'exactness.csv')
args = parser.parse_args()

OPTIMISERS = {'SGD': (SGD(.05), SGD(.2)), 'SGD, schedules': (SGD(InverseSqrt(.05)), SGD(InverseSqrt(.2))),
              'momentum, Nesterov': (SGD(.02, .8), SGD(.1, .5, nesterov=True, weight_decay=.1)),
              'RMSprop': (RMSprop(.01, .9, 1e-2), RMSprop(.01, .9, 1e-2, momentum=.5, centered=True)),
              'Adam': (Adam(.01, (.5, .9)), Adam(.02, (0., .99))), 'AMSGrad, AdamW': (Adam(.01, (.5, .9), amsgrad=True), AdamW(.02, (0., .99))),
              'clipped': (Clipped(Adam(.01, (.5, .9)), norm=.02), Clipped(SGD(.2, .5), norm=.1))}
EXTRAS = {'none': None, 'R1': R1(1.), 'R2': R2(1.), 'WGAN-GP': WGANGP(1.), 'batch norms': None}

def normed(net: nn.Sequential) -> nn.Sequential:
    "A network with a batch norm before its last activation"
    *first, act, last = net
    return nn.Sequential(*first, nn.BatchNorm1d(last.in_features, dtype=torch.float64), act, last)

torch.set_num_threads(1)
points = 1 + torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
rows = []
for alternating, d_steps, shared, ema, extra, opt in itertools.product((False, True), (1, 2), (True, False), (0., .8), EXTRAS, OPTIMISERS):
    og, od = OPTIMISERS[opt]
    nets = FCGAN(width_g=8, width_d=8, act='tanh')
    if extra == 'batch norms': nets = map(normed, nets)
    gan = GAN(*nets, z_dim=10, opt_g=og, opt_d=od, l2_g=.02, l2_d=.05, alternating=alternating,
              d_steps=d_steps, shared_latents=shared, ema=ema, penalty=EXTRAS[extra])
    metrics = [ALL(points[:5]), Metric(lambda G, D: G(G.latents(20, 0)).mean(), 'mean', True), DiscriminatorLoss(gan, points[:5])]
    run = train(gan, points, 3, 4)
    scores = influence(run, metrics).values
    error = lambda true: ((scores - true).abs().max(0).values / true.abs().max(0).values).max().item()
    second = [finite_differences(run, metrics, range(12), eps=2**i * 1e-7) for i in range(12)]
    fourth = [(4 * a - b) / 3 for a, b in zip(second, second[1:])]
    errors = [error((16 * a - b) / 15) for a, b in zip(fourth, fourth[1:])]
    rows.append(dict(alternating=alternating, d_steps=d_steps, shared_latents=shared, ema=ema, extra=extra, optimisers=opt, error=min(errors)))
    table = pd.DataFrame(rows)
    table.to_csv(args.out, index=False, float_format='%.1e')
print(table.pivot_table(index=['alternating', 'd_steps', 'shared_latents', 'ema', 'extra'], columns='optimisers', values='error').to_string(float_format='{:.0e}'.format))
print(f'{len(table)} combinations, the largest error {table.error.max():.1e}; below 1e-6: {(table.error < 1e-6).sum()}')

"""Why scores are believed less the further back they are traced, on real digits, and what helps.

    python benchmarks/why_k.py --mnist FOLDER [--settings paper silu …] [--seeds 0 1 2] [--threads 1]

Paper 1's setting (10,000 digits, DCGAN of width 8, batch 100, rates 0.001; but without its L2 of 0.001, with 15 epochs of training and 5 of the classifier) and others that differ from it in
one thing. For every number of epochs traced, k: Kendall's tau, Pearson's r and the slope of the scores with what retraining
shows when 16 instances are left out one at a time, and when each keeps 90 % of its weight (change divided by 0.1). FID on
1,000 latents and 1,000 other digits (Paper 1: 10,000), and IS (Paper 1: its logarithm) on 1,000; FID is also what says whether a setting generates comparably. Writes
results/why_k.csv after every k; what is there is not done again. Processes that run side by side need an --out each.
"""
import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from gan_influence.all import DCGAN, FID, GAN, IS, MNIST, R1, SGD, LinearDecay, agreement, flow, leave_one_out, train, train_classifier
from gan_influence.core import permutation


def normed(eps: float):
    "Networks whose group norms have another eps"
    def nets(**how):
        both = DCGAN(width=8, **how)
        for m in (m for net in both for m in net.modules() if isinstance(m, nn.GroupNorm)): m.eps = eps
        return both
    return nets


PAPER = dict(nets=lambda **how: DCGAN(width=8, **how), bs=100, lr=1e-3)
SETTINGS = {
    'paper': {},
    'silu': dict(nets=lambda **how: DCGAN(width=8, act='silu', **how)),
    'norm eps 0.01': dict(nets=normed(.01)),
    'batch 400': dict(bs=400),
    'quarter rates': dict(lr=2.5e-4),
    'average .999': dict(ema=.999),
    'R1': dict(penalty=R1(1.)),
    'falling rates': dict(lr=lambda steps: LinearDecay(1e-3, steps)),  # to 0 at the end of training
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--mnist', type=Path, required=True)
parser.add_argument('--settings', nargs='+', choices=SETTINGS, default=list(SETTINGS))
parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
parser.add_argument('--epochs', type=int, default=15)
parser.add_argument('--ks', type=int, nargs='+', default=[1, 5, 10])
parser.add_argument('--weights', type=float, nargs='+', default=[0., .9])
parser.add_argument('--probes', type=int, default=16)
parser.add_argument('--threads', type=int, default=1)
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results'/'why_k.csv')
args = parser.parse_args()
torch.set_num_threads(args.threads)


def cell(setting: str, seed: int, wanted: list[tuple[int, float]]) -> Iterator[list[dict]]:
    "A row per metric, for every `(k, weight)` that is wanted"
    how = PAPER | SETTINGS[setting]
    start, data = time.perf_counter(), MNIST(args.mnist, (10_000, 10_000, 10_000), seed)
    classifier = train_classifier(data.valid, data.labels['valid'], epochs=5, seed=seed)
    nets, lr, bs = how.pop('nets'), how.pop('lr'), how.pop('bs')
    if callable(lr): lr = lr(args.epochs * (len(data.train) // bs))
    gan = GAN(*nets(seed=seed), z_dim=32, opt_g=SGD(lr), opt_d=SGD(lr), **how)
    run = train(gan, data.train, args.epochs, bs=bs, seed=seed)
    metrics = {'FID': FID(classifier.features, data.valid[:1000], n=1000), 'IS': IS(classifier, n=1000)}
    traced = flow(run, metrics, max(k for k, _ in wanted), open_loop=False)
    probes = permutation(10_000, seed, 'probes')[:args.probes]
    for k, w in wanted:
        true, rows = leave_one_out(run, metrics, probes, k, weight=w), []
        for i, name in enumerate(metrics):
            a = agreement(traced.last(k)[probes, i], true[:, i])
            rows.append(dict(setting=setting, seed=seed, trained=args.epochs, k=k, weight=w, metric=name, tau=a['tau'], pearson=a['pearson'], slope=a['slope'], probes=args.probes,
                             value=traced.scores.metrics[name]['value'], growth=traced.growth[-1 - k, i].item()))
        print(f'{time.perf_counter() - start:6.0f} s', *(f'{row[c]:.3g}' if isinstance(row[c], float) else row[c] for row in rows for c in ('setting', 'seed', 'k', 'weight', 'metric', 'value', 'tau', 'pearson', 'slope')), flush=True)
        yield rows


def stored() -> pd.DataFrame:
    "The rows so far"
    return pd.read_csv(args.out) if args.out.exists() else pd.DataFrame(columns=['setting', 'seed', 'trained', 'k', 'weight', 'probes'])


for seed in args.seeds:
    for setting in args.settings:
        done = stored()
        done = done[(done.setting == setting) & (done.seed == seed) & (done.trained == args.epochs) & (done.probes == args.probes)]
        wanted = [(k, w) for k in args.ks for w in args.weights if not ((done.k == k) & (done.weight == w)).any()]
        for rows in cell(setting, seed, wanted) if wanted else ():
            pd.concat([stored(), pd.DataFrame(rows)]).to_csv(args.out, index=False, float_format='%.4g')

"""Paper 1's second experiment on 2D-Normal: gain of the test ALL after removing instances, against the baselines.

    python benchmarks/cleansing_2d.py --seeds 5

Settings of the paper: 50,000 / 10,000 / 10,000 instances, batch 100, 70 epochs, rates 0.001, k = 1. Seeds are ours: data,
initial values, batches and latents change with each. Beside the paper's selections, adaptive greedy: scored anew, without
those removed so far, at every size. Writes results/cleansing_2d.csv after every seed.
"""
import argparse
import time
from pathlib import Path

import pandas as pd

from gan_influence.all import (ALL, FCGAN, GAN, DiscriminatorLoss, Normal2D, SGD, adaptive_greedy, chance, cleanse, influence,
                               isolation_forest, train)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--seeds', type=int, default=5)
parser.add_argument('--sizes', type=int, nargs='+', default=[500, 1000, 2500, 5000, 10_000, 20_000])
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results'/'cleansing_2d.csv')
args = parser.parse_args()

tables = [t for _, t in pd.read_csv(args.out).groupby('seed')] if args.out.exists() else []
for seed in range(args.seeds):
    if any((t.seed == seed).all() for t in tables): continue
    start = time.perf_counter()
    data = Normal2D(seed=seed)
    gan = GAN(*FCGAN(seed=seed), z_dim=10, opt_g=SGD(1e-3), opt_d=SGD(1e-3))
    run = train(gan, data.train, epochs=70, bs=100, seed=seed)
    metric = ALL(data.valid, seed=seed)
    scores = influence(run, [metric, DiscriminatorLoss(gan, data.valid, seed=seed)], epochs=1)
    baselines = {'adaptive greedy': adaptive_greedy(run, metric, args.sizes, epochs=1), 'isolation forest': isolation_forest(data.train), 'random': chance(len(data.train), seed)}
    tables.append(cleanse(run, scores, args.sizes, ALL(data.test, seed=seed), baselines=baselines).assign(seed=seed))
    pd.concat(tables).to_csv(args.out, index=False)
    print(f'seed {seed}: {time.perf_counter() - start:.0f} s', flush=True)
found = pd.concat(tables)
print('gain of the test ALL, times 100: mean and standard deviation over seeds')
print((100 * found.pivot_table('gain', 'selection', 'removed', aggfunc=['mean', 'std'], sort=False)).round(2).to_string())

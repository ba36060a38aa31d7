"""Linear datamodeling score on 2D-Normal at Paper 1's settings: do summed scores rank what removing random sets does to ALL?

    python benchmarks/lds.py --seeds 0 1 2 --epochs 1 5 10

10,000 / 1,000 / 1,000 instances, batch 100, 50 epochs, rates 0.001, ReLU and SiLU; 100 random sets of 1 % and of 10 % are left
out of the last k epochs. `draw` says whose truth it is: 0 is the training that was scored, with its own batches and latents; 1 is
another one, in which the scores were not made. Beside ours, TracIn on the discriminator's loss: summed over the states at the ends of
the k epochs, and over the validation instances. Spearman's rank correlation with its 95 % interval, bootstrapped over the sets.
Writes results/lds.csv after every k, so a stopped run keeps what it finished.
"""
import argparse
import time
from pathlib import Path

import pandas as pd
import torch
from scipy import stats

from gan_influence.all import ALL, FCGAN, GAN, SGD, Model, Normal2D, agreement, bootstrapped, flow, leaving_out, train, true_changes
from gan_influence.check import random_sets
from peers import tracin

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
parser.add_argument('--epochs', type=int, nargs='+', default=[1, 5, 10])
parser.add_argument('--act', nargs='+', default=['relu', 'silu'])
parser.add_argument('--drops', type=float, nargs='+', default=[.01, .1])
parser.add_argument('--draws', type=int, nargs='+', default=[0, 1])
parser.add_argument('--subsets', type=int, default=100)
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results'/'lds.csv')
args = parser.parse_args()

rows = pd.read_csv(args.out).to_dict('records') if args.out.exists() else []
for seed in args.seeds:
    for act in args.act:
        have = {(r['seed'], r['activation'], r['k'], r['drop'], r['draw']) for r in rows}
        todo = [(k, drop, draw) for k in args.epochs for drop in args.drops for draw in args.draws if (seed, act, k, drop, draw) not in have]
        if not todo: continue
        data = Normal2D(10_000, 1_000, 1_000, seed=seed)
        gan = GAN(*FCGAN(act=act, seed=seed), z_dim=10, opt_g=SGD(1e-3), opt_d=SGD(1e-3), compiled=True)
        run, metric, longest = train(gan, data.train, epochs=50, bs=100, seed=seed), ALL(data.valid, seed=seed), max(k for k, *_ in todo)
        traced = {'ours' if kinks is None else f'ours, kinks {kinks}': flow(run, metric, longest, open_loop=False, kinks=kinks) for kinks in ((None, .01) if act == 'relu' else (None,))}
        ends = [tracin(Model(run.gan, run.state(run.epochs - i)).modules()[1], data.train, data.valid) for i in range(longest)]
        for k, drop, draw in todo:
            start, sets = time.perf_counter(), random_sets(len(data.train), drop, args.subsets, seed)
            true = true_changes(run, metric, leaving_out(run, sets), k, draws=[draw])[0, :, 0]
            scores = {name: found.last(k)[:, 0] for name, found in traced.items()} | {'TracIn': torch.stack(ends[:k]).sum(0)}
            for name, score in scores.items():
                a, ci = agreement(score[sets].sum(1), true), bootstrapped(stats.spearmanr, score[sets].sum(1), true).confidence_interval
                rows.append(dict(seed=seed, activation=act, k=k, drop=drop, draw=draw, subsets=args.subsets, estimator=name, lds=a['spearman'], low=ci.low, high=ci.high, pearson=a['pearson'], slope=a['slope']))
                print(f'seed {seed} {act} k={k} drop {drop} draw {draw} {name}: {a["spearman"]:.3f} [{ci.low:.3f}, {ci.high:.3f}]  ({time.perf_counter() - start:.0f} s)', flush=True)
            pd.DataFrame(rows).to_csv(args.out, index=False)
print(pd.DataFrame(rows).groupby(['activation', 'estimator', 'drop', 'draw', 'k']).lds.agg(['mean', 'min', 'max', 'count']).round(3).to_string())

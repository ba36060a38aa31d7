"""Paper 1's first experiment on 2D-Normal: predicted against true change of ALL when one instance is left out.

    python benchmarks/accuracy_2d.py --seeds 0 1 2 --epochs 1 5 10 --act relu silu

Settings of the paper: 10,000 / 1,000 / 1,000 instances, batch 100, 50 epochs, rates 0.001, instances 0 to 199 left out
one at a time over the last k epochs. Seeds are ours: data, initial values, batches and latents change with each. ReLU is
traced exactly, which is the published estimate, and with the curvature of its kinks (`influence(…, kinks=.01)`).
Writes results/accuracy_2d.csv after every k, so a stopped run keeps what it finished.
"""
import argparse
import time
from pathlib import Path

import pandas as pd

from gan_influence.all import ALL, FCGAN, GAN, Normal2D, SGD, agreement, flow, leave_one_out, train

OUT = Path(__file__).parent/'results'/'accuracy_2d.csv'

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--seeds', type=int, nargs='+', default=list(range(10)))
parser.add_argument('--epochs', type=int, nargs='+', default=[1, 5, 10])
parser.add_argument('--act', nargs='+', default=['relu', 'silu'])
parser.add_argument('--instances', type=int, default=200)
parser.add_argument('--out', type=Path, default=OUT)
args = parser.parse_args()

rows = pd.read_csv(args.out).to_dict('records') if args.out.exists() else []
for seed in args.seeds:
    for act in args.act:
        have = {(r['seed'], r['activation'], r['k']) for r in rows}
        todo = [k for k in args.epochs if (seed, act, k) not in have]
        if not todo: continue
        data = Normal2D(10_000, 1_000, 1_000, seed=seed)
        gan = GAN(*FCGAN(act=act, seed=seed), z_dim=10, opt_g=SGD(1e-3), opt_d=SGD(1e-3), compiled=True)
        run, metric, idx = train(gan, data.train, epochs=50, bs=100, seed=seed), ALL(data.valid, seed=seed), range(args.instances)
        traced = {kinks: flow(run, metric, max(todo), open_loop=False, kinks=kinks or None) for kinks in ((0, .01) if act == 'relu' else (0,))}
        for k in todo:
            start, true = time.perf_counter(), leave_one_out(run, metric, idx, epochs=k)[:, 0]
            for kinks, found in traced.items():
                a = agreement(found.last(k)[:args.instances, 0], true)
                rows.append(dict(seed=seed, activation=act, k=k, kinks=kinks, **a))
                print(f'seed {seed} {act} k={k} kinks {kinks}: tau {a["tau"]:.4f}  slope {a["slope"]:.4f}  ({time.perf_counter() - start:.0f} s)', flush=True)
            pd.DataFrame(rows).to_csv(args.out, index=False)
print(pd.DataFrame(rows).groupby(['activation', 'kinks', 'k'])[['tau', 'jaccard', 'pearson', 'slope']].agg(['mean', 'std']).round(4))

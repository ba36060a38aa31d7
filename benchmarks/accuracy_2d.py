"""Paper 1's first experiment on 2D-Normal: predicted against true change of ALL when one instance is left out.

    python benchmarks/accuracy_2d.py --seeds 5 --epochs 1 5 10 --act relu silu

Settings of the paper: 10,000 / 1,000 / 1,000 instances, batch 100, 50 epochs, rates 0.001, instances 0 to 199 left out
one at a time over the last k epochs. Seeds are ours: data, initial values, batches and latents change with each.
Writes results/accuracy_2d.csv after every seed, so a stopped run keeps what it finished.
"""
import argparse
import time
from pathlib import Path

import pandas as pd

from gan_influence.all import ALL, FCGAN, GAN, Normal2D, SGD, agreement, influence, leave_one_out, train

OUT = Path(__file__).parent/'results'/'accuracy_2d.csv'

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--seeds', type=int, default=5)
parser.add_argument('--epochs', type=int, nargs='+', default=[1, 5, 10])
parser.add_argument('--act', nargs='+', default=['relu', 'silu'])
parser.add_argument('--instances', type=int, default=200)
parser.add_argument('--out', type=Path, default=OUT)
args = parser.parse_args()

rows = pd.read_csv(args.out).to_dict('records') if args.out.exists() else []
for seed in range(args.seeds):
    for act in args.act:
        have = {(r['seed'], r['activation'], r['k']) for r in rows}
        todo = [k for k in args.epochs if (seed, act, k) not in have]
        if not todo: continue
        data = Normal2D(10_000, 1_000, 1_000, seed=seed)
        gan = GAN(*FCGAN(act=act, seed=seed), z_dim=10, opt_g=SGD(1e-3), opt_d=SGD(1e-3))
        run, metric, idx = train(gan, data.train, epochs=50, bs=100, seed=seed), ALL(data.valid, seed=seed), range(args.instances)
        for k in todo:
            start = time.perf_counter()
            found = agreement(influence(run, metric, epochs=k)['ALL'][:args.instances], leave_one_out(run, metric, idx, epochs=k)[:, 0])
            rows.append(dict(seed=seed, activation=act, k=k, **found))
            print(f'seed {seed} {act} k={k}: tau {found["tau"]:.4f}  slope {found["slope"]:.4f}  ({time.perf_counter() - start:.0f} s)', flush=True)
            pd.DataFrame(rows).to_csv(args.out, index=False)
print(pd.DataFrame(rows).groupby(['activation', 'k'])[['tau', 'jaccard', 'pearson', 'slope']].agg(['mean', 'std']).round(4))

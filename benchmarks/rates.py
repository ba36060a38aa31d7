"""Is it worth letting the rates fall before images are scored? And does a smoothed derivative of LeakyReLU help there?

    python benchmarks/rates.py --seeds 3

The GAN of the tutorial "Your own GAN" (3,000 digits, Adam with betas of 0.5 and 0.999, 12 epochs) at a rate of 0.001 to the
last step (constant), at one that falls from there to 0.00005 from the first step on (falling), and at one that does so in
the last quarter of training (late); traced exactly and with kinks of 0.01, over one epoch and two. For
each: test FID before, the gain predicted (on the validation split) and the gain measured (on both splits) when the
instances that score worst are left out of the epochs that were traced, and when as many are left out at random. FID is of
the brightness of 49 patches. Initial values, batches and latents change with the seed. Writes results/rates.csv after every
training.
"""
import argparse
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from gan_influence.all import FID, GAN, Adam, LinearDecay, chance, cleanse, digits, influence, train

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--seeds', type=int, default=3)
parser.add_argument('--sizes', type=int, nargs='+', default=[30, 100, 300])
parser.add_argument('--threads', type=int, default=1)
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results'/'rates.csv')
args = parser.parse_args()
torch.set_num_threads(args.threads)


def nets(seed: int) -> tuple[nn.Module, nn.Module]:
    "The tutorial's networks"
    torch.manual_seed(seed)
    return (nn.Sequential(nn.Linear(16, 32 * 7 * 7), nn.LeakyReLU(.2), nn.Unflatten(1, (32, 7, 7)), nn.ConvTranspose2d(32, 16, 4, 2, 1),
                          nn.LeakyReLU(.2), nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Tanh()),
            nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(.2), nn.Flatten(), nn.Linear(32 * 7 * 7, 1)))


def patches(x: torch.Tensor) -> torch.Tensor:
    "The brightness of 49 patches"
    return nn.functional.avg_pool2d(x, 4).flatten(1)


data = digits()
steps = 12 * (len(data.train) // 32)
SCHEDULES = {'constant': 1e-3, 'falling': LinearDecay(1e-3, steps, 5e-5), 'late': lambda t: 1e-3 * min(1, .05 + 4 * (1 - t / steps))}
tables = [t for _, t in pd.read_csv(args.out).groupby(['seed', 'rates'])] if args.out.exists() else []
for seed in range(args.seeds):
    for rates, lr in SCHEDULES.items():
        if any((t.seed == seed).all() and (t.rates == rates).all() for t in tables): continue
        start, adam = time.perf_counter(), Adam(lr, (.5, .999))
        run = train(GAN(*nets(seed), z_dim=16, opt_g=adam, opt_d=adam, alternating=True), data.train, epochs=12, bs=32, seed=seed)
        valid, test = FID(patches, data.valid, seed=seed), FID(patches, data.test, seed=seed)
        found = []
        for k in (1, 2):
            scores = {f'influence{", kinks" if kinks else ""}': influence(run, valid, k, kinks=kinks) for kinks in (None, .01)}
            orders = {name: s.ranking('FID') for name, s in scores.items()} | {'random': chance(len(data.train), seed)}
            t = cleanse(run, orders, args.sizes, {'valid': valid, 'test': test}, epochs=k).rename(columns={'metric': 'split'})
            gain = lambda row: scores[row.selection].harm('FID')[orders[row.selection][:row.removed]].sum().item() if row.selection in scores else float('nan')
            found.append(t.assign(predicted=t.apply(gain, axis=1), traced=k))
        tables.append(pd.concat(found).assign(seed=seed, rates=rates)[['seed', 'rates', 'traced', 'selection', 'removed', 'split', 'before', 'predicted', 'gain']].round(6))
        pd.concat(tables).to_csv(args.out, index=False)
        print(f'seed {seed}, {rates} rates: {time.perf_counter() - start:.0f} s', flush=True)
found = pd.concat(tables)
print('test FID before: ', found.query('split == "test"').groupby('rates').before.agg(['mean', 'std']).round(3).to_dict('index'))
print('gain of FID and what was predicted: means over seeds, and the lowest gain')
print(found.pivot_table(['predicted', 'gain'], ['rates', 'traced', 'selection'], ['removed', 'split'], aggfunc='mean', sort=False).round(3).to_string())
print(found.pivot_table('gain', ['rates', 'traced', 'selection'], ['removed', 'split'], aggfunc='min', sort=False).round(3).to_string())

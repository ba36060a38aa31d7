"""Does `trust` recommend a trace that can be believed? Its probes against other instances that are really left out.

    python benchmarks/trust.py [--seeds 0 1 2] [--data points digits] [--data mnist --mnist FOLDER]

Points: 2D-Normal, 5,000 instances, 20 epochs, ReLU (traced exactly, and with kinks of .01) and SiLU, ALL. Digits: 1,000
real digits, DCGAN of width 8 with its sigmoids, Adam, 20 epochs, FID. MNIST: 10,000 digits, Paper 1's DCGAN and SGD as in `why_k.py`,
15 epochs, FID; looked back over 1 and 5. For every number of epochs traced: Kendall's tau on the
40 probes (20 for digits, 16 for MNIST) with its error, tau on other instances (200; 40; 24) that the report never saw, and
whether the report recommends a trace that long. Writes results/trust.csv: a row per run, kind of trace and number of
epochs; finished runs are kept.
"""
import argparse
from pathlib import Path

import pandas as pd
import torch

from gan_influence.all import ALL, DCGAN, FCGAN, FID, GAN, MNIST, SGD, Adam, Normal2D, agreement, digits, influence, leave_one_out, train, train_classifier, trust
from gan_influence.core import permutation

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
parser.add_argument('--data', nargs='+', choices=['points', 'digits', 'mnist'], default=['points', 'digits'])
parser.add_argument('--mnist', type=Path, help='its folder (`tools/fetch_mnist.py`)')
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results'/'trust.csv')
args = parser.parse_args()


def points(act: str, seed: int):
    "A run on points, its metric, and what to look at"
    data = Normal2D(5000, 2000, 10, seed=seed)
    gan = GAN(*FCGAN(act=act, seed=seed), z_dim=10, opt_g=SGD(1e-2), opt_d=SGD(1e-2))
    return train(gan, data.train, 20, seed=seed), ALL(data.valid), [1, 2, 5, 10, 20], 40, 200


def numbers(act: str, seed: int):
    "The same on digits"
    data = digits((1000, 1000, 1000), seed=seed)
    classifier = train_classifier(data.valid, data.labels['valid'], seed=seed)
    gan = GAN(*DCGAN(width=8, act=act, seed=seed), z_dim=32, opt_g=Adam(1e-3, (.5, .9)), opt_d=Adam(1e-3, (.5, .9)))
    return train(gan, data.train, 20, seed=seed), FID(classifier.features, data.valid), [1, 2, 5, 10, 20], 20, 40


def mnist(act: str, seed: int):
    "The same on 10,000 digits, in Paper 1's setting"
    data = MNIST(args.mnist, (10_000, 10_000, 10_000), seed)
    classifier = train_classifier(data.valid, data.labels['valid'], epochs=5, seed=seed)
    gan = GAN(*DCGAN(width=8, act=act, seed=seed), z_dim=32, opt_g=SGD(1e-3), opt_d=SGD(1e-3))
    return train(gan, data.train, 15, bs=100, seed=seed), FID(classifier.features, data.valid[:1000], n=1000), [1, 5], 16, 24


def measured(kind: str, act: str, seed: int) -> pd.DataFrame:
    "A row per kind of trace and number of epochs"
    run, metric, ks, probes, others = dict(points=points, digits=numbers, mnist=mnist)[kind](act, seed)
    seen = torch.cat([b.idx for b in run.epoch(run.epochs - 1)])
    unseen = seen[permutation(len(seen), seed, 'probes')][probes:probes + others]  # the order that `trust` takes its probes from
    true = {k: leave_one_out(run, metric, unseen, k)[:, 0] for k in ks}
    found = []
    for kinks in (None, .01) if act == 'relu' else (None,):
        report = trust(run, metric, max(ks), ks=ks, probes=probes, beyond=True, seed=seed, kinks=kinks)
        print(kind, act, seed, f'kinks {kinks}', report, sep='\n', flush=True)
        taus = [agreement(influence(run, metric, k, kinks=kinks).values[unseen, 0], true[k])['tau'] for k in ks]
        found.append(report.table.reset_index().assign(data=kind, act=act, seed=seed, kinks=kinks, tau_of_others=taus, recommended=[report.epochs is not None and k <= report.epochs for k in ks]))
    return pd.concat(found)


columns = ['data', 'act', 'kinks', 'seed', 'epochs', 'tau', 'error', 'tau_of_others', 'recommended', 'curvature', 'smooth', 'rounding', 'redrawn', 'variants', 'float32', 'growth']
done = pd.read_csv(args.out) if args.out.exists() else pd.DataFrame(columns=columns)
for seed in args.seeds:
    for kind, act in [(k, a) for k in args.data for a in dict(points=['relu', 'silu'], digits=['sigmoid'], mnist=['sigmoid'])[k]]:
        if ((done.data == kind) & (done.act == act) & (done.seed == seed)).any(): continue
        done = pd.concat([done, measured(kind, act, seed)[columns]])
        done.to_csv(args.out, index=False, float_format='%.4g')
print(done.to_string(index=False))
kept = done[done.recommended.astype(bool)]
print(f'recommended: {len(kept)} traces, tau on other instances {kept.tau_of_others.min():.2f} at the least; not recommended: {len(done) - len(kept)}, {done[~done.recommended.astype(bool)].tau_of_others.max():.2f} at the most')

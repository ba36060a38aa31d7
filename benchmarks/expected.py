"""Is the mean of scores over several draws of batches and latents worth its cost? Against removals, which are averaged too.

    python benchmarks/expected.py [--seeds 0 1 2] [--data points digits] [--ks 1 5 10]

Points: 1,000 of 2D-Normal, rates of .02, 20 epochs, ReLU (traced exactly, and with kinks of .01) and SiLU, ALL; 60 left out
one at a time, 10 draws. Digits: 1,000 real digits, DCGAN of width 8, Adam, 20 epochs, FID; 20 left out, 8 draws. Columns:

own              Kendall's tau of one training's scores with removals in this very training, mean over draws
mean             … of the mean of all scores with the mean of all removals; and the slope of these means
score, removal   … of one training's scores, and of one training's removals, with the mean removal of the draws of the other half
scores, removals … of the means over half of the draws, with the mean removal of the other half
gain_one, gain_expected   of the metric on test data when the most harmful tenth is removed, by one training's scores and by
                 the mean of all, in as many draws that no score has seen; and the standard error of their difference over these,
                 given the two rankings: the luck of the one training that is ranked is not in it

Writes results/expected.csv, a row per run, kind of trace and number of epochs; what is there is not done again.
"""
import argparse
from pathlib import Path

import pandas as pd
import torch

from gan_influence.all import ALL, DCGAN, FCGAN, FID, GAN, SGD, Adam, Normal2D, agreement, digits, evaluate, influence, leave_one_out, leaving_out, redrawn, retrain_many, train, train_classifier
from gan_influence.core import permutation

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
parser.add_argument('--data', nargs='+', choices=['points', 'digits'], default=['points', 'digits'])
parser.add_argument('--ks', type=int, nargs='+', default=[1, 5, 10])
parser.add_argument('--threads', type=int, default=1)
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results'/'expected.csv')
args = parser.parse_args()
torch.set_num_threads(args.threads)


def points(act: str, seed: int):
    "A run on points, its metric on two splits, how many draws to take and instances to leave out"
    data = Normal2D(1000, 500, 500, seed=seed)
    gan = GAN(*FCGAN(act=act, seed=seed), z_dim=10, opt_g=SGD(.02), opt_d=SGD(.02), compiled=True)
    return train(gan, data.train, 20, bs=50, seed=seed), ALL(data.valid), ALL(data.test), 10, 60


def numbers(act: str, seed: int):
    "The same on digits"
    data = digits((1000, 1000, 1000), seed=seed)
    features = train_classifier(data.valid, data.labels['valid'], seed=seed).features
    gan = GAN(*DCGAN(width=8, act=act, seed=seed), z_dim=32, opt_g=Adam(1e-3, (.5, .9)), opt_d=Adam(1e-3, (.5, .9)))
    return train(gan, data.train, 20, seed=seed), FID(features, data.valid), FID(features, data.test), 8, 20


def measured(kind: str, act: str, seed: int, k: int) -> pd.DataFrame:
    "A row per kind of trace"
    run, metric, test, draws, probes = dict(points=points, digits=numbers)[kind](act, seed)
    some = permutation(len(run.data), seed, 'probes')[:probes]
    runs = [redrawn(run, i, epochs=k) for i in range(draws)]
    fresh = [redrawn(run, draws + i, epochs=k) for i in range(draws)]
    true = torch.stack([leave_one_out(r, metric, some, k)[:, 0] for r in runs])
    tau, rows = lambda a, b: agreement(a, b)['tau'], []
    mean = lambda values: sum(values) / len(values)
    halves = [slice(0, draws // 2), slice(draws // 2, draws)]
    crossed = lambda found, one: mean([tau(p, true[there].mean(0)) for here, there in (halves, halves[::-1]) for p in (found[here] if one else [found[here].mean(0)])])
    for kinks in (None, .01) if act == 'relu' else (None,):
        scores = [influence(r, metric, k, kinks=kinks) for r in runs]
        harm = torch.stack([s.harm(metric.name) for s in scores])
        found = torch.stack([s[metric.name][some] for s in scores])
        both = agreement(found.mean(0), true.mean(0))
        worst = lambda harm: harm.argsort(descending=True)[:len(run.data) // 10].tolist()
        sign = 1 if metric.higher_is_better else -1
        gains = torch.tensor([[sign * (evaluate(test, model) - evaluate(test, r.model)) for model in retrain_many(r, leaving_out(r, [worst(harm[0]), worst(harm.mean(0))]), k)] for r in fresh])
        better = gains[:, 1] - gains[:, 0]
        rows.append(dict(data=kind, act=act, seed=seed, k=k, kinks=kinks, draws=draws, own=mean([tau(p, t) for p, t in zip(found, true)]), mean=both['tau'], slope=both['slope'],
                         score=crossed(found, True), removal=crossed(true, True), scores=crossed(found, False), removals=crossed(true, False),
                         gain_one=gains[:, 0].mean().item(), gain_expected=gains[:, 1].mean().item(), gain_error=better.std().item() / draws**.5))
        print({c: round(v, 4) if isinstance(v, float) else v for c, v in rows[-1].items()}, flush=True)
    return pd.DataFrame(rows)


done = pd.read_csv(args.out) if args.out.exists() else pd.DataFrame(columns=['data', 'act', 'seed', 'k'])
for seed in args.seeds:
    for kind, act in [(kind, act) for kind in args.data for act in dict(points=['relu', 'silu'], digits=['sigmoid'])[kind]]:
        for k in args.ks:
            if ((done.data == kind) & (done.act == act) & (done.seed == seed) & (done.k == k)).any(): continue
            done = pd.concat([done, measured(kind, act, seed, k)])
            done.to_csv(args.out, index=False, float_format='%.4g')
print(done.to_string(index=False))

"""A run of 100,000 steps traced back whole: time, memory and disk.

    python benchmarks/long_run.py --threads 1

The GAN of 2D-Normal in float64, batch 100, 10,000 instances, 1,000 epochs. Every part is a process of its own, so that
its peak memory is its own. Writes results/long_run.csv: a row per log schedule.
"""
import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from gan_influence.all import ALL, FCGAN, GAN, SGD, Binomial, Every, Normal2D, Root, Run, influence, train

LOGS = {'every epoch': None, 'root': Root(), 'binomial, 50 slots': Binomial(50), 'every step': Every(1)}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--threads', type=int, default=1)
parser.add_argument('--epochs', type=int, default=1000)
parser.add_argument('--logs', nargs='+', choices=LOGS, default=['every epoch'])
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results'/'long_run.csv')
parser.add_argument('--part', nargs=3, help=argparse.SUPPRESS)  # what one of the processes does
args = parser.parse_args()


def work(what: str, path: str, log: str) -> dict:
    "Train or trace back, and say what it took"
    torch.set_num_threads(args.threads)
    data, gan = Normal2D(10_000, 1000, 1000), GAN(*FCGAN(), z_dim=10, opt_g=SGD(1e-3), opt_d=SGD(1e-3))
    start, result = time.perf_counter(), {}
    if what == 'train': train(gan, data.train, args.epochs, 100, path=path, log=LOGS[log])
    else:
        run = Run.open(path, gan, data.train)
        scores = influence(run, ALL(data.valid))
        result = dict(steps=run.steps, repeated=run.cost().forward, largest_score=scores.values.abs().max().item())
    return result | {f'{what}_s': round(time.perf_counter() - start, 1), f'{what}_peak_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


if args.part: print(json.dumps(work(*args.part)))
else:
    rows = []
    for log in args.logs:
        with tempfile.TemporaryDirectory() as folder:
            row = dict(log=log)
            for what in ('train', 'trace'):
                options = ['--threads', str(args.threads), '--epochs', str(args.epochs), '--part', what, f'{folder}/run', log]
                row |= json.loads(subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True).stdout)
                if what == 'train': row['disk_mib'] = round(sum(f.stat().st_size for f in Path(folder).rglob('*') if f.is_file()) / 2**20, 1)
        rows.append(row | dict(times_training=round(row['trace_s'] / row['train_s'], 2), threads=args.threads))
        pd.DataFrame(rows).to_csv(args.out, index=False)
        print(pd.DataFrame(rows).to_string(index=False), flush=True)

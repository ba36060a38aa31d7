"""The whole table: what everything costs, side by side in one run, as ratios.

    python benchmarks/table.py [--sections step trace …] [--threads 2] [--repeats 15] [--device cuda]

step             a step, and a step back for all instances of its batch (also by PyTorch's own layers, differentiated twice),
                 beside a plain PyTorch training step, also with both networks compiled; on a GPU also beside the recorded one
trace            one epoch traced back from an ordinary log, beside one epoch of plain PyTorch training
metrics          a step back for 1, 4 and 16 metrics, plain and compiled
designs          the design that Paper 1 released, one pass per instance, forward over reverse differentiation, and the unrolled
                 graph of `higher`, beside ours
cheap            TracIn on the discriminator's loss, as one derivative and by Captum and dattri (which form all pairs of training
                 and test instances), beside a trace of one epoch: time, and tau with the truth
counterfactuals  1, 20 and 200 instances left out by `retrain_many`, and 20 in as many draws of batches and latents (convolutions
                 on the CPU follow one another there), beside as many times one `retrain`, which is timed in turns with them; and 20
                 one after another that, like those together, start where they leave the run
work             FLOPs and bytes of each kind of step, beside what this machine does at best
growth           time and memory of a trace as steps, instances, parameters and batches grow; a process per point

What is compared takes turns, so a slow moment of the machine hits all of it, and a ratio is one of medians. Before the
design of Paper 1 or `higher` is timed, its scores are compared with ours; peers that are not installed are left out. Writes results/table.csv, results/growth.csv and results/growth.png;
sections that are not asked for keep their rows. On a GPU it writes results/table_gpu.csv, and nothing of `growth`, which is of
a CPU's memory.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from unittest.mock import patch

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from gan_influence.all import ALL, DCGAN, FCGAN, GAN, SGD, Batch, Every, Metric, Normal2D, agreement, backtrack, influence, leave_one_out, retrain, retrain_many, train
from gan_influence.core import map_tensors
from peers import forward_over_reverse, per_instance, plain_step, tracin, tracin_captum, tracin_dattri, unrolled

RESULTS = Path(__file__).parent/'results'
RATE = SGD(1e-3)
DEVICE = torch.device('cpu')  # or the GPU that was asked for
CASES = {'FCGAN, float64': (FCGAN, (2,), 10, torch.float64)} | {f'DCGAN, width {h}': (lambda h=h: DCGAN(width=h), (1, 28, 28), 32, torch.float32) for h in (8, 32)}


def race(kinds: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    "Milliseconds of every kind, in turns, after one turn that does not count"
    times = {k: [] for k in kinds}
    for i in range(repeats + 1):
        for k, f in kinds.items():
            start = time.perf_counter(); f()
            if DEVICE.type == 'cuda': torch.cuda.synchronize()
            if i: times[k].append(1e3 * (time.perf_counter() - start))
    return times


def players(case: str) -> tuple:
    "This case's two networks"
    return tuple(net.to(DEVICE) for net in CASES[case][0]())


def rows(section: str, case: str, times: dict, of: str, targets: dict | None = None, more: dict | None = None) -> list[dict]:
    "A row per kind, with its ratio to the kind `of`"
    return [dict(section=section, case=case, what=k, median_ms=median(t), min_ms=min(t), max_ms=max(t), of=of, ratio=median(t) / median(times[of]), target=(targets or {}).get(k, '')) | (more or {}).get(k, {})
            for k, t in times.items()]


def at_a_step(case: str, metrics: int = 1):
    "A GAN of this case, one of its states and batches, weights, and adjoints"
    _, shape, z_dim, dtype = CASES[case]
    rng = torch.Generator().manual_seed(0)
    gan = GAN(*players(case), z_dim=z_dim, opt_g=RATE, opt_d=RATE)
    x, z = ((torch.rand(100, *size, generator=rng, dtype=dtype) * 2 - 1).to(DEVICE) for size in (shape, (z_dim,)))
    s = gan.start()
    return gan, s, Batch(1, torch.arange(100, device=DEVICE), x, z), x.new_ones(100), [map_tensors(lambda p: torch.randn(p.shape, generator=rng, dtype=dtype).to(DEVICE), s) for _ in range(metrics)]


def trained(case: str, n: int, epochs: int, log=None, **how):
    "A run of this case on data without meaning, and a metric without cost"
    _, shape, z_dim, dtype = CASES[case]
    gan = GAN(*players(case), z_dim=z_dim, opt_g=RATE, opt_d=RATE, **how)
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 2 - 1
    return train(gan, x, epochs, bs=100, log=log, device=DEVICE), Metric(lambda G, D: G(G.latents(100, 0)).square().mean(), 'size', True)


def step(repeats):
    for case in CASES:
        torch._dynamo.reset()  # what it compiled for the case before counts towards its limit
        gan, s, b, w, u = at_a_step(case)
        def by_pytorch():
            with patch('gan_influence.influence.twice', lambda values: nullcontext()): backtrack(gan, u, s, b, w)
        kinds = {'plain PyTorch': plain_step(*players(case), b.x, b.z), 'plain PyTorch, compiled': plain_step(*map(torch.compile, players(case)), b.x, b.z), 'step': lambda: gan.step(s, b, w), 'step back': lambda: backtrack(gan, u, s, b, w), "step back, PyTorch's layers": by_pytorch}
        fast = replace(gan, compiled=True)
        kinds['step back, compiled'] = lambda: backtrack(fast, u, s, b, w)
        if gan.gains_together(DEVICE): kinds['step, compiled'] = lambda: fast.step(s, b, w)
        times = race(kinds, repeats * (10 if case.startswith('FCGAN') else 1))
        yield from rows('step', case, times, 'plain PyTorch', {k: '≤ 1.5' for k in kinds if 'back' in k and 'layers' not in k})
        if DEVICE.type == 'cuda': yield from rows('recorded', case, {k: times[k] for k in ('step back, compiled', 'step back')}, 'step back, compiled', {'step back': '≥ 5' if case.startswith('FCGAN') else '≥ 3'})


def trace(repeats):
    for case, n in zip(CASES, (10_000, 1000, 1000)):
        run, metric = trained(case, n, 1)
        G, D = players(case)
        steps = [plain_step(G, D, run.batches[t].x, run.batches[t].z) for t in range(run.steps)]
        def plain():
            for one in steps: one()
        full, _ = trained(case, n, 1, Every(1))
        kinds = {'plain PyTorch': plain, 'trace': lambda: influence(run, metric), 'trace, every step logged': lambda: influence(full, metric)}
        fast, _ = trained(case, n, 1, compiled=True)
        kinds['trace, compiled'] = lambda: influence(fast, metric)
        fast_full, _ = trained(case, n, 1, Every(1), compiled=True)
        kinds['trace, compiled, every step logged'] = lambda: influence(fast_full, metric)
        yield from rows('trace', f'{case}, {run.steps} steps', race(kinds, max(3, repeats // 3)), 'plain PyTorch', {k: '≤ 2' for k in kinds if 'trace' in k})


def metrics(repeats):
    for case in list(CASES)[:2]:
        gan, s, b, w, u = at_a_step(case, 16)
        plain = {f'{m}': lambda m=m: backtrack(gan, u[:m], s, b, w) for m in (1, 4, 16)}
        yield from rows('metrics', case, race(plain, repeats), '1', {'16': '≤ 5'})
        if not gan.gains_together(DEVICE): continue
        fast = replace(gan, compiled=True)
        yield from rows('metrics', f'{case}, compiled', race({f'{m}': lambda m=m: backtrack(fast, u[:m], s, b, w) for m in (1, 4, 16)}, repeats), '1', {'16': '≤ 5'})


def designs(repeats):
    for case, target in zip(CASES, ('≥ 10', '', '≥ 5')):
        gan, s, b, w, u = at_a_step(case)
        [before], scores = backtrack(gan, u, s, b, w)
        others = {'a pass per instance': per_instance, 'jvp of the gradient': forward_over_reverse}
        eps = 1e-9 if b.x.dtype == torch.float64 else 1e-3
        far = lambda p, q: ((p - q).abs().max() / q.abs().max()).item()
        for name, f in others.items():
            back_g, back_d, theirs = f(gan.G, gan.D, u[0], s, b.x, b.z)
            if max(far(theirs, scores[0]), *(far(back[k], ours[k]) for back, ours in ((back_g, before.g), (back_d, before.d)) for k in back)) > eps: raise SystemExit(f'{case}: {name} and ours disagree')
        kinds = {'ours': lambda: backtrack(gan, u, s, b, w)} | {name: lambda f=f: f(gan.G, gan.D, u[0], s, b.x, b.z) for name, f in others.items()}
        if gan.gains_together(DEVICE):
            fast = replace(gan, compiled=True)
            kinds['ours, compiled'] = lambda: backtrack(fast, u, s, b, w)
        times = race(kinds, max(3, repeats // 3) * (10 if case.startswith('FCGAN') else 1))
        yield from rows('designs', case, times, 'ours', {'a pass per instance': target})
    if find_spec('higher'):
        case = 'FCGAN, float64'
        run, _ = trained(case, 10_000, 1)
        z = run.model.G.latents(100, 0)
        size = lambda G, D: G(z).square().mean()
        batches = [run.batches[t] for t in range(run.steps)]
        def by_higher(): return unrolled(*players(case), [(b.idx, b.x, b.z) for b in batches], size, 10_000)
        ours, fast = (GAN(*players(case), z_dim=10, opt_g=RATE, opt_d=RATE, compiled=compiled) for compiled in (False, True))
        def by_us(gan=ours, log=None): return influence(train(gan, run.data, 1, bs=100, log=log), Metric(size, 'size', True))['size']
        if (by_higher().cpu() - by_us()).abs().max() > 1e-9 * by_us().abs().max(): raise SystemExit('higher and ours disagree')
        yield from rows('designs', f'{case}, 100 steps trained and traced', race({'ours': by_us, 'ours, every step logged': lambda: by_us(log=Every(1)), 'ours, compiled': lambda: by_us(fast), 'higher': by_higher}, 5), 'ours')


def cheap(repeats):
    data = Normal2D(2000, 1000, 10)
    run, metric, some = train(GAN(*FCGAN(), z_dim=10, opt_g=SGD(1e-2), opt_d=SGD(1e-2)), data.train, 5, bs=100, device=DEVICE), ALL(data.valid.to(DEVICE)), range(200)
    D = run.model.modules()[1]
    true = leave_one_out(run, metric, some, 1)[:, 0]
    kinds = {'trace': lambda: influence(run, metric, 1)['ALL'], 'TracIn, summed over the test set': lambda: tracin(D, run.data, data.valid.to(DEVICE))}
    if find_spec('captum'): kinds['TracIn, Captum'] = lambda: tracin_captum(D, run.data, data.valid.to(DEVICE))
    if find_spec('dattri'): kinds['TracIn, dattri'] = lambda: tracin_dattri(D, run.data, data.valid.to(DEVICE))
    taus = {k: dict(tau=agreement(f()[:200].detach().cpu(), true)['tau']) for k, f in kinds.items()}
    yield from rows('cheap', 'FCGAN, float64, 2,000 instances', race(kinds, 2), 'trace', more=taus)


def counterfactuals(repeats):
    counts = {'1': (1, None), '20': (20, None), '200': (200, None), '20 in 20 draws': (20, range(20))}
    for case, n, turns in (('FCGAN, float64', 2000, 3), ('DCGAN, width 8', 1000, 1)):
        run, _ = trained(case, n, 1)
        without = lambda m: torch.ones(m, n, dtype=run.data.dtype, device=DEVICE).scatter_(1, torch.arange(m, device=DEVICE)[:, None], 0)
        kinds = {'': run} | ({', compiled': trained(case, n, 1, compiled=True)[0]} if run.gan.gains_together(DEVICE) else {})
        alone = {'20, each from where it leaves the run': lambda: list(retrain_many(run, without(20), chunk=1))}
        times = race({f'{label} together{how}': lambda m=m, draws=draws, run=run: list(retrain_many(run, without(m), draw=draws)) for how, run in kinds.items() for label, (m, draws) in counts.items()} | alone | {'one': lambda: retrain(run, without=[0])}, turns)
        for how in kinds:
            for label, (m, _) in counts.items():
                both = {f'{label} together{how}': times[f'{label} together{how}'], f'{label} one after another': [m * t for t in times['one']]} | ({k: times[k] for k in alone} if label == '20' else {})
                yield from rows('counterfactuals', f'{case}, {run.steps} steps', both, f'{label} together{how}', {'200 one after another': '≥ 30' if DEVICE.type == 'cuda' and case.startswith('DCGAN') else '≥ 3'})


class Bytes(TorchDispatchMode):
    "Counts the bytes that operations read and write"
    total = 0

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **kwargs or {})
        if not getattr(f, 'is_view', False): self.total += sum(t.nbytes for t in torch.utils._pytree.tree_leaves((args, kwargs, out)) if torch.is_tensor(t))
        return out


def work(repeats):
    side, long = 2048, 1 << 26
    for dtype in (torch.float64, torch.float32):
        a, v = torch.rand(side, side, dtype=dtype, device=DEVICE), torch.rand(long // dtype.itemsize, dtype=dtype, device=DEVICE)
        to = torch.empty_like(v)
        best = {k: min(t) for k, t in race({'mm': lambda: a @ a, 'copy': lambda: to.copy_(v)}, 7).items()}
        flops, rate = 2 * side**3 / best['mm'], 2 * long / best['copy']  # per millisecond
        for case in [c for c in CASES if CASES[c][3] == dtype]:
            gan, s, b, w, u = at_a_step(case)
            kinds = {'plain PyTorch': plain_step(*players(case), b.x, b.z), 'step back': lambda: backtrack(gan, u, s, b, w)}
            times, more = race(kinds, repeats), {}
            for k, f in kinds.items():
                with FlopCounterMode(display=False) as counted: f()
                with Bytes() as moved: f()
                bound = max(counted.get_total_flops() / flops, moved.total / rate)
                more[k] = dict(gflop=counted.get_total_flops() / 1e9, mib=moved.total / 2**20, times_bound=median(times[k]) / bound)
            yield from rows('work', f'{case}; machine {flops / 1e6:.0f} GFLOP/s, {rate / 1e6:.0f} GB/s', times, 'plain PyTorch', more=more)


POINTS = {  # what grows → its values → n, batch, epochs, width of the generator
    'steps': {100 * k: (10_000, 100, k, 32) for k in (1, 2, 4, 8, 16, 32)},
    'instances': {n: (n, 100, 40_000 // n, 32) for n in (1250, 2500, 5000, 10_000, 20_000, 40_000)},
    'parameters': {w: (10_000, 100, 1, w) for w in (32, 64, 128, 256, 512)},
    'batch': {bs: (100 * bs, bs, 1, 32) for bs in (25, 50, 100, 200, 400, 800)}}


def point(n: int, bs: int, epochs: int, width: int) -> dict:
    "Seconds and memory of one trace, in a process of its own"
    data, gan = Normal2D(n, 1000, 10), GAN(*FCGAN(width_g=width, width_d=2 * width), z_dim=10, opt_g=RATE, opt_d=RATE)
    run, metric = train(gan, data.train, epochs, bs=bs), ALL(data.valid)
    influence(train(gan, data.train[:bs], 1, bs=bs), metric)  # what comes first takes longer
    start = time.perf_counter()
    influence(run, metric)
    return dict(steps=run.steps, parameters=sum(p.numel() for p in (*gan.start().g.values(), *gan.start().d.values())), trace_s=time.perf_counter() - start, peak_mib=peak())


def peak() -> float:
    "The most memory that this process has had, MiB, as Linux counts it (`ru_maxrss` starts with the parent's)"
    return int(next(line.split()[1] for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM'))) / 1024


def growth(threads: int) -> pd.DataFrame:
    "A row per point"
    found = []
    for grows, values in POINTS.items():
        for value, setting in values.items():
            out = subprocess.run([sys.executable, __file__, '--threads', str(threads), '--point', json.dumps(setting)], check=True, capture_output=True, text=True).stdout
            found.append(dict(grows=grows, value=value) | json.loads(out.splitlines()[-1]))
    return pd.DataFrame(found)


def draw(table: pd.DataFrame):
    "The picture of what `growth` found"
    fig, axes = plt.subplots(2, 4, figsize=(11, 4.6), sharey='row', layout='constrained')
    for grows, (top, bottom) in zip(POINTS, axes.T):
        part = table[table.grows == grows]
        across = part.parameters if grows == 'parameters' else part.value
        top.loglog(across, part.trace_s, 'o-')
        if grows != 'instances': top.loglog(across, part.trace_s.iloc[-1] * across / across.iloc[-1], 'k:', lw=1, label='linear')
        bottom.semilogx(across, part.peak_mib, 'o-'); bottom.set(xlabel=grows, ylim=(0, 1.3 * table.peak_mib.max()))
        for ax in (top, bottom):
            ax.set_xticks(across, [f'{v:,}' if v < 10_000 else f'{v / 1000:,.0f}k' for v in across], fontsize=8); ax.minorticks_off()
            ax.grid(alpha=.3); ax.spines[['top', 'right']].set_visible(False)
    axes[0, 0].set_ylabel('trace, seconds'); axes[1, 0].set_ylabel('peak memory, MiB'); axes[0, 0].legend(frameon=False)
    fig.savefig(RESULTS/'growth.png', dpi=80)


SECTIONS = dict(step=step, trace=trace, metrics=metrics, designs=designs, cheap=cheap, counterfactuals=counterfactuals, work=work)


def machine() -> str:
    "What this machine is, in words"
    if DEVICE.type == 'cuda': return torch.cuda.get_device_name(DEVICE)
    name = next((line.split(':')[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name')), '') if Path('/proc/cpuinfo').exists() else ''
    size = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30 if hasattr(os, 'sysconf') else 0
    return f'{platform.system()} {platform.machine()} {name}, {os.cpu_count()} cores, {size:.0f} GiB'.strip()


def main():
    global DEVICE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sections', nargs='+', choices=[*SECTIONS, 'growth'], default=[*SECTIONS, 'growth'])
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--device', type=torch.device, default=DEVICE)
    parser.add_argument('--point', type=json.loads, help=argparse.SUPPRESS)  # what one of growth's processes does
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    DEVICE = args.device
    if args.point: return print(json.dumps(point(*args.point)))
    out = RESULTS/('table_gpu.csv' if DEVICE.type == 'cuda' else 'table.csv')
    old = pd.read_csv(out) if out.exists() else pd.DataFrame(columns=['section'])
    for name in [s for s in SECTIONS if s in args.sections]:
        new = pd.DataFrame(SECTIONS[name](args.repeats)).assign(threads=args.threads, torch=torch.__version__, machine=machine())
        old = pd.concat([old[~old.section.isin(new.section)], new])
        old.to_csv(out, index=False, float_format='%.5g')
        print(new.drop(columns=['section', 'torch', 'machine']).to_string(index=False, float_format='{:.2f}'.format), flush=True)
    if 'growth' in args.sections and DEVICE.type == 'cpu':
        grown = growth(args.threads)
        grown.to_csv(RESULTS/'growth.csv', index=False, float_format='%.4g')
        draw(grown)


if __name__ == '__main__': main()

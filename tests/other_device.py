"""All that the library does, on a device that is not the CPU, where there is no GPU: it must give the CPU's results.

    python tests/other_device.py

The device is made by `other_device.cpp`, in the CPU's memory: it refuses to mix its tensors with the CPU's, as a GPU does.
Needs a C++ compiler and three minutes. Exits with an error where a result differs, or cannot be had there.
"""
import io
import sys
import tempfile
import types
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch.utils.cpp_extension import load

from gan_influence.all import (ALL, DCGAN, FCGAN, FID, GAN, IS, R1, SGD, WGANGP, Adam, AdamW, Augment, Clipped, InverseSqrt, LinearDecay, Metric, Normal2D, RMSprop, StyleGAN, adaptive_greedy,
                               cleanse, expected_influence, finite_differences, flow, influence, influence_implicit, leave_one_out, lora, plot_points, plot_samples, retrain, reweighted, train,
                               train_classifier, trust)
from gan_influence.cli import main
from gan_influence.core import flatten
from gan_influence.metrics import DiscriminatorLoss

POINTS = Normal2D(200, 60, 60)
IMAGES = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
METRICS = {'a': Metric(lambda G, D: G(G.latents(40, 0)).square().mean(), 'a', True), 'b': Metric(lambda G, D: G(G.latents(40, 1)).mean(), 'b', False)}


def register():
    "Make the device, called `other`"
    torch.utils.rename_privateuse1_backend('other')
    module = types.ModuleType('torch.other')
    module.is_available = module.is_initialized = lambda: True
    module.device_count, module.current_device, module._is_in_bad_fork = lambda: 1, lambda: 0, lambda: False
    module.get_amp_supported_dtype = lambda: [torch.float32]
    torch._register_device_module('other', module)
    load('other_device', [Path(__file__).with_suffix('.cpp')], extra_cflags=['-O0'], verbose=False)
    torch.utils.generate_methods_for_privateuse1_backend()
    plain = torch.Tensor.__deepcopy__
    def copied(self, memo):  # which PyTorch does by way of storages, that this device has not
        if self.device.type != 'other': return plain(self, memo)
        return memo.setdefault(id(self), self.detach().clone().requires_grad_(self.requires_grad))
    torch.Tensor.__deepcopy__ = copied


def points(device, **how):
    "A run on points"
    return train(GAN(*FCGAN(), **(dict(z_dim=10, opt_g=SGD(.02), opt_d=SGD(.02)) | how)), POINTS.train, 3, 20, device=device)


def images(device, nets, **how):
    "A run on images"
    return train(GAN(*(net.double() for net in nets), **(dict(z_dim=32, opt_g=SGD(.02), opt_d=Adam(.001)) | how)), torch.nn.functional.avg_pool2d(IMAGES, 2) if how.get('alternating') else IMAGES, 2, 20, device=device)


def scored(run):
    "What a run is, and what is made of it"
    return [*flatten(run.state()).values(), influence(run, METRICS, 2).values, leave_one_out(run, METRICS, range(3), 2)]


def adapted(device):
    "A style-based GAN under alternating updates, R1 and an average, then adapters"
    run = images(device, StyleGAN(14, width=4, depth=1), alternating=True, shared_latents=False, ema=.9, penalty=R1(1.))
    return [*scored(run), *scored(images(device, [lora(net, rank=2) for net in run.model.modules()], alternating=True))]


def judged(device):
    "FID and IS"
    x, y = IMAGES.to(device), (torch.arange(60) % 10).to(device)
    net, run = train_classifier(x.float(), y, epochs=2).double(), images(device, DCGAN(width=4))
    return [influence(run, {'FID': FID(net.features, x), 'IS': IS(net, n=60)}, 1).values]


def everything(device):
    "The rest of the library on one run"
    run, metric = points(device), ALL(POINTS.valid)
    scores, found = influence(run, metric, 1), flow(run, METRICS, 2)
    table = cleanse(run, scores, [5, 20], ALL(POINTS.test))
    plot_points(scores, 'ALL', run.model, retrain(run, without=[0], epochs=1), n=50); plot_samples({'now': images(device, DCGAN(width=4)).model}, n=4)
    return [scores.values, influence(run, METRICS, 2, kinks=.01, renormalise=True).values, influence(run, DiscriminatorLoss(run.gan, POINTS.valid), 1).values, found.scores.values, found.growth,
            finite_differences(run, METRICS, range(3), 1), influence_implicit(run.model, run.data, METRICS['a'], damping=1.).values, expected_influence(run, METRICS, 1, draws=2).values,
            adaptive_greedy(run, metric, [5, 10], 1), influence(reweighted(run, without=[0, 1], epochs=2), METRICS, 1).values, torch.tensor(table.after), torch.tensor(trust(run, metric, 2, probes=10, beyond=True).table.tau.to_numpy())]


def shell(device):
    "Every verb of the command line"
    with tempfile.TemporaryDirectory() as tmp:
        np.save(f'{tmp}/points.npy', Normal2D(500, 1, 1).train.numpy())
        for line in (f'train {tmp}/run --data {tmp}/points.npy --epochs 3 --bs 20 --lr-g .02 --lr-d .02 --device {device}', f'trust {tmp}/run --epochs 2 --probes 10', f'score {tmp}/run --epochs 1',
                     f'cleanse {tmp}/run --sizes 20 60', f'check {tmp}/run --instances 10', f'report {tmp}/run'):
            with redirect_stdout(io.StringIO()): status = main(line.split())
            if status: raise RuntimeError(line)
        return [torch.tensor(np.loadtxt(f'{tmp}/run/scores.csv', delimiter=',', skiprows=1, usecols=(1, 2)))]


WHAT = {'SGD': lambda d: scored(points(d)), 'Adam, clipped AdamW': lambda d: scored(points(d, opt_g=Adam(.01), opt_d=Clipped(AdamW(.01), norm=1.))),
        'alternating, d_steps, average': lambda d: scored(points(d, alternating=True, d_steps=2, ema=.9, shared_latents=False)), 'WGAN-GP': lambda d: scored(points(d, penalty=WGANGP(1.))),
        'schedules, momentum, L2': lambda d: scored(points(d, opt_g=RMSprop(LinearDecay(.01, 30)), opt_d=SGD(InverseSqrt(.02), momentum=.9), l2_g=.1, l2_d=.1)),
        'DCGAN, augmented': lambda d: scored(images(d, DCGAN(width=4), augment=Augment())), 'StyleGAN, LoRA': adapted, 'FID, IS': judged, 'everything else': everything, 'command line': shell}


if __name__ == '__main__':
    matplotlib.use('Agg')
    torch.set_num_threads(1)
    register()
    for name, f in WHAT.items():
        worst = max(((a.cpu().double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-12)).item() for a, b in zip(f('other'), f('cpu'), strict=True) if b.numel())
        print(f'{name}: relative difference {worst:.1e}', flush=True)
        if not worst < 1e-6: sys.exit(f'{name}: the results differ')

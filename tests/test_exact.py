"The backtracking step against two other implementations of it, and metrics at the size the papers use."
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gan_influence import log
from gan_influence.all import (ALL, DCGAN, FCGAN, GAN, R1, R2, SGD, WGANGP, Adam, AdamW, Augment, Batch, Clipped, InverseSqrt, LinearDecay, Metric, Normal2D, RMSprop, backtrack,
                               finite_differences, influence, leave_one_out, retrain, train)
from gan_influence.compiled import as_recording
from gan_influence.core import flatten, map_tensors
from gan_influence.gan import own_gradients_functional


def random_step(nets, shape, z_dim, t=0, **kwargs):
    "A GAN, a state, a batch, its weights and an adjoint, all random"
    rng = torch.Generator().manual_seed(0)
    normal = lambda *s: torch.randn(*s, dtype=torch.float64, generator=rng)
    gan = GAN(*nets, z_dim=z_dim, **kwargs)
    s = gan.start()
    return gan, s, Batch(t, torch.arange(6), normal(6, *shape), normal(6 if gan.shared_latents else 12, z_dim), torch.rand(6, dtype=torch.float64, generator=rng)), torch.ones(6, dtype=torch.float64), map_tensors(lambda p: normal(*p.shape), s)


def close(a, b, eps=1e-10):
    for k, v in flatten(a).items(): torch.testing.assert_close(v, flatten(b)[k], rtol=eps, atol=eps * flatten(b)[k].abs().max().item() + 1e-14)


class Bent(SGD):
    "Not linear in the gradients, other than what it is made of"
    def update(self, grads, memory, params, t): return super().update({k: g.tanh() for k, g in grads.items()}, memory, params, t)


@pytest.mark.parametrize('alternating', [False, True])
# Adam's eps keeps the comparison well conditioned: with 1e-3 a rounding of the parameters moves the adjoint by 1e-9
@pytest.mark.parametrize('opt', [SGD, lambda lr: Adam(lr, (.5, .9), .1), Bent])
@pytest.mark.parametrize('nets', ['fc', 'dc'])
def test_backtrack_is_the_vjp_by_torch_func(nets, opt, alternating):
    "Ours runs torch.autograd twice; torch.func's vjp of the functional step is another way to the same"
    networks, shape, z_dim = (FCGAN(), (2,), 10) if nets == 'fc' else (DCGAN(width=3, dtype=torch.float64), (1, 28, 28), 32)
    gan, s, b, w, u = random_step(networks, shape, z_dim, opt_g=opt(.05), opt_d=opt(.2), l2_g=.02, l2_d=.05, alternating=alternating)
    [ours], score = backtrack(gan, [u], s, b, w)
    _, pull = torch.func.vjp(lambda s, w: gan.step(s, b, w, own_gradients_functional), s, w)
    theirs, dw = pull(u)
    close(ours, theirs)
    torch.testing.assert_close(score[0], -dw, rtol=1e-10, atol=1e-12)


def test_compiled_norms_of_a_convolutional_gan():
    "A step back with its norms as one kernel is the plain one, and really has them"
    gan, s, b, w, u = random_step(DCGAN(width=3, dtype=torch.float64), (1, 28, 28), 32, opt_g=SGD(.05), opt_d=SGD(.2), compiled=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        [ours], score = backtrack(gan, [u], s, b, w)
    [theirs], plain = backtrack(replace(gan, compiled=False), [u], s, b, w)
    close(ours, theirs)
    torch.testing.assert_close(score, plain, rtol=1e-10, atol=1e-12)
    assert not torch.equal(score, plain)  # other sums


@pytest.mark.parametrize('t', [0, 1])  # the discriminator's step, both players' step
@pytest.mark.parametrize('how', [dict(d_steps=2), dict(d_steps=2, alternating=True, ema=.7), dict(shared_latents=False), dict(ema=.7),
                                 dict(penalty=R1(2.)), dict(penalty=R2(2.), alternating=True), dict(penalty=WGANGP(2.), loss='wasserstein', d_steps=2),
                                 dict(normed=True), dict(normed=True, d_steps=2, alternating=True, ema=.7)])
def test_schemes_by_torch_func(how, t):
    "Several discriminator steps, latents of the generator's own, its average, batch norms: both ways to the step and to its transpose"
    nets = [nn.Sequential(*net[:-1], nn.BatchNorm1d(net[-1].in_features, dtype=torch.float64), net[-1]) if how.get('normed') else net for net in FCGAN()]
    how = {k: v for k, v in how.items() if k != 'normed'}
    gan, s, b, w, u = random_step(nets, (2,), 10, t, opt_g=SGD(.05, .5), opt_d=Adam(.2, (.5, .9), .1), l2_g=.02, **how)
    [ours], score = backtrack(gan, [u], s, b, w)
    after, pull = torch.func.vjp(lambda s, w: gan.step(s, b, w, own_gradients_functional), s, w)
    theirs, dw = pull(u)
    close(ours, theirs)
    close(gan.step(s, b, w), after)
    many = torch.vmap(lambda w: gan.step(s, b, w, own_gradients_functional))(torch.stack([w, .5 * w]))
    close(gan.step(s, b, .5 * w), map_tensors(lambda p: p[1], many))
    torch.testing.assert_close(score[0], -dw, rtol=1e-10, atol=1e-12)
    assert all(torch.equal(p, s.g[k]) for k, p in after.g.items()) == (gan.d_steps == 2 and t == 0)


def test_a_compiled_run_is_the_plain_one():
    "Training, tracing and retraining by compiled kernels, both phases of two discriminator steps per generator step"
    how = dict(opt_g=Adam(LinearDecay(.01, 40), (.5, .9)), opt_d=SGD(.05, .5), d_steps=2, shared_latents=False, ema=.8)
    points = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, compiled = (train(GAN(*FCGAN(width_g=8, width_d=8, act='silu'), 10, compiled=c, **how), points, 4, 10) for c in (False, True))
    assert len(compiled.gan.compiler.graphs) == 2 and not plain.gan.compiler.graphs
    close(compiled.state(), plain.state(), 1e-11)
    for metrics in ([ALL(points)], [ALL(points, seed=i, name=f'latents {i}') for i in range(3)]):
        torch.testing.assert_close(influence(compiled, metrics).values, influence(plain, metrics).values, rtol=1e-9, atol=1e-12)
    close(retrain(compiled, [3]).state, retrain(plain, [3]).state, 1e-11)
    assert len(compiled.gan.compiler.graphs) == 6 and None not in compiled.gan.compiler.graphs.values()
    for a, b in zip(flatten(retrain(compiled).state).values(), flatten(compiled.state()).values()): assert torch.equal(a, b)


@pytest.mark.parametrize('how', [dict(penalty=R1(2.), alternating=True, opt_g=Clipped(AdamW(.01, eps=.1), 1.), opt_d=Clipped(AdamW(.02, eps=.1), 1.)), dict(normed=True)])
def test_compiled_penalties_clipping_and_batch_norms(how):
    "What the step may contain besides: compiled, it is the plain one, in training and in a trace, also with renormalised weights"
    points = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    nets = [nn.Sequential(*net[:-1], nn.BatchNorm1d(8, dtype=torch.float64), net[-1]) if how.get('normed') else net for net in FCGAN(width_g=8, width_d=8, act='silu')]
    how = {k: v for k, v in how.items() if k != 'normed'}
    plain, compiled = (train(GAN(*nets, 10, compiled=c, **how), points, 3, 10) for c in (False, True))
    close(compiled.state(), plain.state(), 1e-11)
    for renormalise in (False, True):
        torch.testing.assert_close(influence(compiled, ALL(points), renormalise=renormalise).values, influence(plain, ALL(points), renormalise=renormalise).values, rtol=1e-9, atol=1e-12)
    assert len(compiled.gan.compiler.graphs) == 2 and None not in compiled.gan.compiler.graphs.values()


def test_kinks_are_compiled_and_resumed_as_kinks(tmp_path, monkeypatch):
    "A compiled trace with the curvature of ReLU is the plain one; a stopped trace is continued by none of another width"
    points = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, compiled = (train(GAN(*FCGAN(width_g=8, width_d=8), 10, compiled=c, opt_g=SGD(.05), opt_d=SGD(.05)), points, 4, 10) for c in (False, True))
    metric, scores = ALL(points), {}
    for kinks in (None, .1, .3):
        scores[kinks] = influence(plain, metric, kinks=kinks).values
        torch.testing.assert_close(influence(compiled, metric, kinks=kinks).values, scores[kinks], rtol=1e-9, atol=1e-12)
    assert not any(torch.allclose(scores[a], scores[b]) for a, b in ((None, .1), (None, .3), (.1, .3)))
    stored = train(plain.gan, points, 4, 10, path=tmp_path/'run')
    with monkeypatch.context() as m:
        m.setattr(log, 'SAVE_EVERY', 0)
        def stop(self): raise KeyboardInterrupt
        m.setattr(log.Unfinished, 'done', stop)
        with pytest.raises(KeyboardInterrupt): influence(stored, metric, kinks=.1)
    assert list((tmp_path/'run'/'unfinished').iterdir())
    assert torch.equal(influence(stored, metric).values, scores[None]) and torch.equal(influence(stored, metric, kinks=.1).values, scores[.1])



@pytest.mark.parametrize('loss', ['nonsaturating', 'minmax', 'least_squares', 'hinge', 'softplus'])
def test_one_pass_for_both_players_is_two_passes(loss):
    "The generator's gradient from the discriminator's pass back, also where a logit leaves nothing to send"
    gan, s, b, w, u = random_step(DCGAN(width=3, dtype=torch.float64), (1, 28, 28), 32, loss=loss, opt_g=SGD(.05), opt_d=SGD(.2), l2_g=.02, l2_d=.05)
    for shift in (0, -8, -40):  # of the discriminator's logits
        s.d['22.bias'].fill_(shift)
        _, pull = torch.func.vjp(lambda s, w: gan.step(s, b, w, own_gradients_functional), s, w)
        theirs, dw = pull(u)
        [ours], score = backtrack(gan, [u], s, b, w)
        close(ours, theirs)
        torch.testing.assert_close(score[0], -dw, rtol=1e-10, atol=1e-12)
        close({'after': gan.step(s, b, w)._asdict()}, {'after': gan.step(s, b, w, own_gradients_functional)._asdict()})


@pytest.mark.parametrize('alternating', [False, True])
def test_backtrack_is_the_papers_transpose_with_the_right_rates(alternating):
    "The adjoint of Paper 1 derived by hand, each loss's terms at its own player's rate, both schemes"
    rate_g, rate_d = .05, .2
    gan, s, b, w, u = random_step(FCGAN(), (2,), 10, opt_g=SGD(rate_g), opt_d=SGD(rate_d), alternating=alternating)
    [ours], score = backtrack(gan, [u], s, b, w)

    g, d = ({k: p.clone().requires_grad_() for k, p in q.items()} for q in (s.g, s.d))
    def inner(loss, params, v): return sum((x * v[k]).sum() for x, k in zip(torch.autograd.grad(loss, list(params.values()), create_graph=True), params))
    def pulled(scalar, params): return dict(zip(params, torch.autograd.grad(scalar, list(params.values()), retain_graph=True, materialize_grads=True)))
    logits = lambda g, d: gan.judge(d, gan.generate(g, b.z))
    loss_d = lambda g, d: gan.loss_d(d, gan.judge(d, b.x), logits(g, d), w)
    loss_g = lambda g, d: gan.loss_g(g, logits(g, d))
    ug, ud = u.g, u.d
    if alternating:  # the generator moved last, at the new discriminator: undo it first
        new_d = {k: (p - rate_d * x).detach().requires_grad_() for (k, p), x in zip(d.items(), torch.autograd.grad(loss_d(g, d), list(d.values())))}
        sg = rate_g * inner(loss_g(g, new_d), g, ug)
        ug, ud = {k: ug[k] - v for k, v in pulled(sg, g).items()}, {k: ud[k] - v for k, v in pulled(sg, new_d).items()}
        sd = rate_d * inner(loss_d(g, d), d, ud)
        expected_g, expected_d = ({k: v[k] - x for k, x in pulled(sd, q).items()} for q, v in ((g, ug), (d, ud)))
    else:
        both = rate_g * inner(loss_g(g, d), g, ug) + rate_d * inner(loss_d(g, d), d, ud)
        expected_g, expected_d = ({k: v[k] - x for k, x in pulled(both, q).items()} for q, v in ((g, ug), (d, ud)))
    close({'g': ours.g, 'd': ours.d}, {'g': expected_g, 'd': expected_d})
    per_instance = []
    for x in b.x:  # the published loop: one gradient per instance
        real = F.softplus(-gan.judge(d, x[None])).sum()
        per_instance.append(rate_d / 6 * inner(real, d, ud).item())
    torch.testing.assert_close(score[0], torch.tensor(per_instance, dtype=torch.float64), rtol=1e-10, atol=1e-13)


def test_a_frozen_layer_stays_and_the_scores_stay_exact():
    "Parameters that need no gradient are read by the step and never changed by it"
    G, D = FCGAN(width_g=8, width_d=8, act='tanh')
    D[0].weight.requires_grad_(False); G[2].weight.requires_grad_(False)
    data = Normal2D(12, 5, 5)
    gan = GAN(G, D, z_dim=10, opt_g=SGD(.05), opt_d=Adam(.02, (.5, .9)))
    run, metric = train(gan, data.train, 3, 4), ALL(data.valid)
    assert set(run.state().d) == {'2.weight', '4.weight'}
    assert torch.equal(run.model.modules()[0][2].weight, G[2].weight)
    scores, true = influence(run, metric)['ALL'], finite_differences(run, metric, range(12))[:, 0]
    assert (scores - true).abs().max() < 1e-6 * true.abs().max()


class Attention(nn.Module):
    "Attention among the features of one instance"
    def __init__(self, width):
        super().__init__()
        self.of = nn.Linear(1, 3 * width, dtype=torch.float64)

    def forward(self, x):
        q, k, v = self.of(x[..., None]).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v).mean(-1)


@pytest.mark.parametrize('what', ['weight norm', 'old weight norm', 'attention'])
def test_what_pytorch_differentiates_wrongly_or_not_at_all(what):
    "Scores against finite differences of retraining"
    G, D = FCGAN(width_g=8, width_d=8, act='silu')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the old weight norm is deprecated
        for net in (G, D) if 'weight norm' in what else ():
            for i in (0, 2): net[i] = (nn.utils.weight_norm if what.startswith('old') else nn.utils.parametrizations.weight_norm)(net[i])
    if what == 'attention':
        D = nn.Sequential(D[0], nn.Tanh(), Attention(4), nn.Linear(8, 1, dtype=torch.float64))
        rng = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in (*D[2].parameters(), *D[3].parameters()): p.uniform_(-1, 1, generator=rng)
    opt, data = Adam(.01, (.5, .9), 1e-3), torch.rand(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    run = train(GAN(G, D, z_dim=10, opt_g=opt, opt_d=opt), data, 2, 4)
    metric = Metric(lambda G, D: G(G.latents(20, 0)).square().mean(), 'square', True)
    scores, true = influence(run, metric)['square'], finite_differences(run, metric, range(12))[:, 0]
    assert (scores - true).abs().max() < 1e-6 * true.abs().max()


def test_all_of_ten_thousand_by_ten_thousand_fits_in_two_gigabytes():
    "Value and gradient, through the generator, in a process of its own"
    code = ('import resource, torch; from gan_influence.all import *; from gan_influence.influence import gradient\n'
            "data = Normal2D(10, 10_000, 10_000); gan = GAN(*FCGAN(), z_dim=10)\n"
            'gradient(ALL(data.valid), Model(gan, gan.start())); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2_000_000


class OnlyThere(TorchDispatchMode):
    "Refuses operations with tensors that are not on the device `there`, but for numbers, of which kernels are told"
    def __init__(self, there): super().__init__(); self.there, self.count = torch.device(there), 0

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs, out)) if torch.is_tensor(t)]
        moved = f in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default) and len({t.device for t in tensors}) > 1
        assert not moved and all(t.device == self.there or t.dim() == 0 for t in tensors), f
        self.count += 1
        return out


@pytest.mark.parametrize('nets, shape, z_dim, how', [
    (FCGAN, (2,), 10, dict(opt_g=SGD(InverseSqrt(.01)), opt_d=SGD(.01, momentum=.9))),
    (FCGAN, (2,), 10, dict(opt_g=Adam(.01, amsgrad=True), opt_d=Clipped(AdamW(LinearDecay(.01, 100)), norm=1., value=1.), d_steps=2, ema=.9)),
    (lambda: FCGAN(act='silu'), (2,), 10, dict(opt_g=RMSprop(.01, centered=True), opt_d=SGD(.01), alternating=True, penalty=R1(1.), l2_g=.1, l2_d=.1)),
    (lambda: DCGAN(width=2), (1, 28, 28), 32, dict(opt_g=Adam(.01), opt_d=Adam(.01), augment=Augment())),
])
def test_steps_can_be_recorded(nets, shape, z_dim, how):
    "A GPU's recording reads no value and fetches nothing from the CPU: tensors without values, on a device of their own, show whether a step, its transpose and many steps at once do"
    gan = GAN(*nets(), z_dim=z_dim, compiled=True, **how).to('meta')
    counts = {}
    def tried(name, f, *trees):
        assert all(t.device.type == 'meta' for t in tree_leaves(trees) if torch.is_tensor(t))  # the number of the step too: it must not be recorded as it is now
        with OnlyThere('meta') as there: out = f(*trees)
        counts[name] = there.count
        return out
    object.__setattr__(gan, 'compiler', tried)
    s, make = gan.start('meta'), partial(torch.empty, dtype=next(gan.G.parameters()).dtype, device='meta')
    numbers = make(16, gan.augment.numbers) if gan.augment else None
    for t in range(10, 10 + gan.d_steps):
        b = Batch(t, torch.empty(8, dtype=torch.long, device='meta'), make(8, *shape), make(8, z_dim), u=numbers)
        assert flatten(gan.step(s, b, make(8))).keys() == flatten(s).keys()
        for m in (1, 3): assert backtrack(gan, [s] * m, s, b, make(8))[1].shape == (m, 8)
        many = gan.steps(map_tensors(lambda p: p.repeat(3, *[1] * p.dim()), s), b, make(3, 8))
        assert flatten(many).keys() == flatten(s).keys() and all(len(p) == 3 for p in flatten(many).values())
    assert len(counts) == 3 * gan.d_steps and min(counts.values()) > 50


def test_recorded_steps_are_the_plain_ones(monkeypatch):
    "Also where the same memory is read and written at every step"
    def called_again(f, given):
        made = f(*given)
        return lambda: [to.copy_(new) for to, new in zip(made, f(*given))], made
    monkeypatch.setattr('gan_influence.compiled.as_kernels', partial(as_recording, record=called_again))
    data, found = Normal2D(200, 10, 10).train, []
    metrics = {str(i): Metric(lambda G, D, i=i: G(G.latents(50, i)).square().mean(), 'square', True) for i in range(2)}
    for compiled in (False, True):
        run = train(GAN(*FCGAN(), z_dim=10, opt_g=Adam(.01), opt_d=Adam(.02), d_steps=2, ema=.5, compiled=compiled), data, 3, 20)
        found.append([*flatten(run.state()).values(), influence(run, metrics, 2).values, leave_one_out(run, metrics, range(3), 2)])
        assert len(run.gan.compiler.graphs) == 6 * compiled and None not in run.gan.compiler.graphs.values()
    for plain, recorded in zip(*found): torch.testing.assert_close(recorded, plain, rtol=1e-12, atol=1e-15)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.cuda
@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize('nets, shape, z_dim, opt', [(FCGAN, (2,), 10, SGD(.02)), (FCGAN, (2,), 10, Adam(.01)), (lambda: DCGAN(width=4), (1, 28, 28), 32, SGD(.02))])
def test_a_gpu_trains_scores_and_retrains_as_the_cpu_does(nets, shape, z_dim, opt, compiled):
    "Plain and recorded"
    data, found = torch.rand(80, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1, {}
    metrics = {str(i): Metric(lambda G, D, i=i: G(G.latents(50, i)).square().mean(), 'square', True) for i in range(3)}
    for device in ('cpu', 'cuda'):
        gan = GAN(*(net.double() for net in nets()), z_dim=z_dim, opt_g=opt, opt_d=opt, compiled=compiled and device == 'cuda')
        with warnings.catch_warnings():
            warnings.simplefilter('error')  # what could not be recorded says so
            run = train(gan, data, 3, 20, device=device)
            scores, true = influence(run, metrics, 2), leave_one_out(run, metrics, range(5), 2)
            one = influence(run, {'0': metrics['0']}, 2)
        found[device] = scores.values, one.values, true
    for ours, plain in zip(found['cuda'], found['cpu']): torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-12)


def test_compiled_steps_keep_the_type_of_every_parameter():
    "Also of one without axes, which a step number that is a tensor would widen"
    class Gained(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net, self.gain = net, nn.Parameter(torch.tensor(1.))
        def forward(self, x): return self.gain * self.net(x)
    G, D = (net.float() for net in FCGAN(width_g=4, width_d=4))
    run = train(GAN(Gained(G), D, 10, opt_g=Adam(.01), compiled=True), torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), 2, 10)
    assert {p.dtype for p in flatten(run.state()).values()} == {torch.float32} and len(run.gan.compiler.graphs) == 1

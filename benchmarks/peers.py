"""What else a user could take, each as its own authors would write it, for `table.py` to time beside ours.

    pip install captum dattri higher

Simultaneous SGD on the non-saturating loss throughout, which is all that every one of them can do.
"""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from gan_influence.all import State


def plain_step(G: nn.Module, D: nn.Module, x: torch.Tensor, z: torch.Tensor, lr: float = 1e-3) -> Callable:
    "A training step as in any PyTorch tutorial"
    opt_g, opt_d = torch.optim.SGD(G.parameters(), lr), torch.optim.SGD(D.parameters(), lr)

    def step():
        fake = G(z)
        loss_d = (F.softplus(-D(x)).sum() + F.softplus(D(fake.detach())).sum()) / len(z)
        loss_g = F.softplus(-D(fake)).mean()
        opt_g.zero_grad(); loss_g.backward()
        opt_d.zero_grad(); loss_d.backward()
        opt_d.step(); opt_g.step()
    return step


def per_instance(G: nn.Module, D: nn.Module, u: State, s: State, x: torch.Tensor, z: torch.Tensor, lr: float = 1e-3) -> tuple[dict, dict, torch.Tensor]:
    """A step back by the design that Paper 1 released: for every instance a pass of its own, which takes all parameters
    and adjoints from the log anew; then one for the products of Jacobians and adjoints. Adjoints before the step, scores `(B,)`
    """
    def taken():
        G.load_state_dict(s.g); D.load_state_dict(s.d)
        return [p.clone() for p in u.g.values()], [p.clone() for p in u.d.values()]
    dot = lambda a, b: sum((p * q).sum() for p, q in zip(a, b))
    scores = []
    for one in x.split(1):
        _, u_d = taken()
        scores.append(lr * dot(torch.autograd.grad(F.softplus(-D(one)).sum() / len(x), list(D.parameters())), u_d))
    u_g, u_d = taken()
    fake = G(z)
    loss_d, loss_g = (F.softplus(-D(x)).sum() + F.softplus(D(fake)).sum()) / len(x), F.softplus(-D(fake)).mean()
    grads_g = torch.autograd.grad(loss_g, list(G.parameters()), create_graph=True)
    grads_d = torch.autograd.grad(loss_d, list(D.parameters()), create_graph=True)
    back = torch.autograd.grad(lr * (dot(grads_g, u_g) + dot(grads_d, u_d)), [*G.parameters(), *D.parameters()])
    before = dict(zip(u.g, (p - q for p, q in zip(u_g, back)))), dict(zip(u.d, (p - q for p, q in zip(u_d, back[len(u_g):]))))
    return *before, torch.stack(scores)


def forward_over_reverse(G: nn.Module, D: nn.Module, u: State, s: State, x: torch.Tensor, z: torch.Tensor, lr: float = 1e-3) -> tuple[dict, dict, torch.Tensor]:
    "A step back by `jvp(grad)`, which builds no second graph: each loss's gradient along its own player's adjoint. Results as in `per_instance`"
    run = lambda net, params, x: torch.func.functional_call(net, params, (x,))
    none = lambda tree: {k: torch.zeros_like(p) for k, p in tree.items()}
    w = x.new_ones(len(x))
    def loss_d(g, d, w): return ((w[:, None] * F.softplus(-run(D, d, x))).sum() + F.softplus(run(D, d, run(G, g, z))).sum()) / len(x)
    def loss_g(g, d): return F.softplus(-run(D, d, run(G, g, z))).mean()
    _, (to_g, to_d, to_w) = torch.func.jvp(torch.func.grad(loss_d, (0, 1, 2)), (s.g, s.d, w), (none(s.g), u.d, torch.zeros_like(w)))
    _, (more_g, more_d) = torch.func.jvp(torch.func.grad(loss_g, (0, 1)), (s.g, s.d), (u.g, none(s.d)))
    return {k: v - lr * (to_g[k] + more_g[k]) for k, v in u.g.items()}, {k: v - lr * (to_d[k] + more_d[k]) for k, v in u.d.items()}, lr * to_w


def unrolled(G: nn.Module, D: nn.Module, batches: list, metric: Callable, n: int, lr: float = 1e-3) -> torch.Tensor:
    "Scores `(n,)` by `higher`: the steps on `(indices, x, z)` unrolled with their graph in memory, and one pass back through all"
    import higher
    w = batches[0][1].new_ones(n).requires_grad_()
    opt_g, opt_d = torch.optim.SGD(G.parameters(), lr), torch.optim.SGD(D.parameters(), lr)
    with higher.innerloop_ctx(G, opt_g) as (fg, to_g), higher.innerloop_ctx(D, opt_d) as (fd, to_d):
        for idx, x, z in batches:
            fake = fg(z)
            loss_d = ((w[idx, None] * F.softplus(-fd(x))).sum() + F.softplus(fd(fake)).sum()) / len(x)
            loss_g = F.softplus(-fd(fake)).mean()
            to_d.step(loss_d); to_g.step(loss_g)
        return -torch.autograd.grad(metric(fg, fd), w)[0]


class Real(nn.Module):
    "The discriminator as a classifier with one logit, which is all that tools for classifiers can be given"
    def __init__(self, D: nn.Module):
        super().__init__()
        self.D = D

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        "Logits that an instance is real, `(B, 1)`"
        return self.D(x).view(-1, 1)


def tracin(D: nn.Module, train: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    "TracIn, one checkpoint, summed over `test`: one derivative along the gradient of the summed loss, `(n,)`; negative where an instance raises that loss"
    params = {k: p.detach() for k, p in D.named_parameters()}
    loss = lambda params, x: F.softplus(-torch.func.functional_call(D, params, (x,))).flatten()
    return torch.func.jvp(lambda p: loss(p, train), (params,), (torch.func.grad(lambda p: loss(p, test).sum())(params),))[1]


def tracin_captum(D: nn.Module, train: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    "The same by Captum, which forms all pairs of training and test instances"
    from captum.influence import TracInCP
    ones = train.new_ones(len(train), 1)
    loss = nn.BCEWithLogitsLoss(reduction='none')
    tracin = TracInCP(Real(D), torch.utils.data.TensorDataset(train, ones), ['the last'], lambda model, path: 1., loss_fn=loss, batch_size=100)
    return tracin.influence((test, ones[:1].expand(len(test), 1)), show_progress=False).sum(0)


def tracin_dattri(D: nn.Module, train: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    "The same by dattri, all pairs, too"
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.task import AttributionTask
    model = Real(D)
    def loss(params, data): return F.softplus(-torch.func.functional_call(model, params, data[0].unsqueeze(0))).sum()
    task = AttributionTask(loss, model, {k: p.detach() for k, p in model.named_parameters()})
    loader = lambda x: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=100)
    attributor = TracInAttributor(task, weight_list=train.new_ones(1), normalized_grad=False)
    return attributor.attribute(loader(train), loader(test)).sum(1)

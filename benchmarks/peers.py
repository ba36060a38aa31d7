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


def tracin_captum(D: nn.Module, train: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    "TracIn by Captum, one checkpoint: the influence of every training instance on the discriminator's loss on `test`, `(n,)`"
    from captum.influence import TracInCP
    ones = train.new_ones(len(train), 1)
    loss = nn.BCEWithLogitsLoss(reduction='none')
    tracin = TracInCP(Real(D), torch.utils.data.TensorDataset(train, ones), ['the last'], lambda model, path: 1., loss_fn=loss, batch_size=100)
    return tracin.influence((test, ones[:1].expand(len(test), 1)), show_progress=False).sum(0)


def tracin_dattri(D: nn.Module, train: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    "The same by dattri"
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.task import AttributionTask
    model = Real(D)
    def loss(params, data): return F.softplus(-torch.func.functional_call(model, params, data[0].unsqueeze(0))).sum()
    task = AttributionTask(loss, model, {k: p.detach() for k, p in model.named_parameters()})
    loader = lambda x: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=100)
    attributor = TracInAttributor(task, weight_list=train.new_ones(1), normalized_grad=False)
    return attributor.attribute(loader(train), loader(test)).sum(1)

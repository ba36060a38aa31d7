"Everything a user needs: `from gan_influence.all import *`"
from gan_influence.core import Diverged, RunError
from gan_influence.data import MNIST, Data, FashionMNIST, Normal2D, as_tensor, digits, split
from gan_influence.nets import DCGAN, FCGAN, LQGAN, Classifier, accuracy, glorot, train_classifier
from gan_influence.style import StyleGAN
from gan_influence.lora import lora, merge, trainable
from gan_influence.optim import SGD, Adam, AdamW, Clipped, InverseSqrt, LinearDecay, RMSprop, from_torch
from gan_influence.losses import LOSSES, R1, R2, WGANGP, Loss, Losses
from gan_influence.augment import Augment
from gan_influence.gan import GAN, Batch, Model, Player, State
from gan_influence.schedule import Binomial, Every, Root
from gan_influence.run import Cost, Run, train
from gan_influence.retrain import leaving_out, retrain, retrain_many
from gan_influence.branch import redrawn, reweighted
from gan_influence.metrics import ALL, FID, IS, DiscriminatorLoss, Metric, evaluate
from gan_influence.scores import Scores
from gan_influence.influence import backtrack, gradient, influence
from gan_influence.implicit import GMRES, Neumann, NotConverged, influence_implicit
from gan_influence.baselines import chance, isolation_forest
from gan_influence.cleanse import best, cleanse
from gan_influence.adaptive import adaptive_greedy
from gan_influence.check import (agreement, bootstrapped, finite_differences, jaccard_by_chance, leave_one_out, linear_datamodeling,
                                 true_changes)
from gan_influence.flow import Flow, flow
from gan_influence.expected import expected_influence
from gan_influence.trust import Trust, trust
from gan_influence.show import image_grid, plot_agreement, plot_cleansing, plot_flow, plot_points, plot_samples, plot_trust, report

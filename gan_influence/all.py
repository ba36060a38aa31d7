"Everything a user needs: `from gan_influence.all import *`"
from gan_influence.core import *
from gan_influence.data import *
from gan_influence.nets import *
from gan_influence.optim import *
from gan_influence.losses import *
from gan_influence.augment import *
from gan_influence.gan import *
from gan_influence.log import *
from gan_influence.schedule import *
from gan_influence.run import *
from gan_influence.metrics import *
from gan_influence.influence import *
from gan_influence.implicit import *
from gan_influence.baselines import *
from gan_influence.cleanse import *
from gan_influence.check import *
from gan_influence.show import *

"Which training instances help or harm a GAN: `from gan_influence.all import *`"
__version__ = "0.1.0"

"`python -m gan_influence`: the command line"
import sys

from gan_influence.cli import main

sys.exit(main())

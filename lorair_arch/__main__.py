"""python -m lorair_arch train|test ...: the `basicsr` command, for torchrun."""

import sys

from lorair_arch.cli import basicsr

if __name__ == '__main__':
    sys.exit(basicsr())

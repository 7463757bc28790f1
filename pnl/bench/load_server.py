"""`panel` as it is, but with a venue that may be asked as often as a measurement wants."""

import sys

from panel.command import main

from pnl.sources import kalshi

READS_PER_S = 100_000

if __name__ == "__main__":
    kalshi.READS_PER_S = READS_PER_S
    main(sys.argv)

"""`python -m pnl.cli`."""

from pnl.cli import main

main()

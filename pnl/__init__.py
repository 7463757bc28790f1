"""Live net P&L for a small operator: Kalshi trading − Anthropic cost + revenue."""

__version__ = "0.1.0"

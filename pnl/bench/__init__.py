"""Measurements: `pnl bench …`; each figure stands beside what it is compared with, taken in the same run."""

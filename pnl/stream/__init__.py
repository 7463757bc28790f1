"""From a snapshot to every page: only what changed, encoded once."""

from pnl.stream.hub import Hub
from pnl.stream.live import Live
from pnl.stream.present import LINE_POINTS
from pnl.stream.texts import changed, fields_of

__all__ = ["LINE_POINTS", "Hub", "Live", "changed", "fields_of"]

"""The report: one HTML file that opens without a network and prints well, of the figures that the page has too."""

from pnl.report.facts import Asked, Facts, gather
from pnl.report.file import file_name, write_whole
from pnl.report.page import render, report_html
from pnl.report.schedule import Due, Schedule

__all__ = [
    "Asked",
    "Due",
    "Facts",
    "Schedule",
    "file_name",
    "gather",
    "render",
    "report_html",
    "write_whole",
]

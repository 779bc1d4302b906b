"""Pages that show results, each one file that needs no network."""

from cyclestyle.report.page import Curve, Page

__all__ = ["Curve", "Page"]

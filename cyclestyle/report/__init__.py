"""Pages of results; each is one HTML file that needs no network."""

from cyclestyle.report.comparison import comparison_page, comparison_sheet
from cyclestyle.report.page import Curve, Page

__all__ = ["Curve", "Page", "comparison_page", "comparison_sheet"]

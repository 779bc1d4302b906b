"""Pages of results; each is one HTML file that needs no network."""

from cyclestyle.report.comparison import comparison_page, comparison_sheet, labelled_sheet
from cyclestyle.report.page import Curve, ImageSource, Page

__all__ = ["Curve", "ImageSource", "Page", "comparison_page", "comparison_sheet", "labelled_sheet"]

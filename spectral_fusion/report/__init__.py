"""Draws an evaluation: a page, a contact sheet, Markdown."""

from spectral_fusion.report.markdown import markdown
from spectral_fusion.report.page import write_report
from spectral_fusion.report.sheet import write_sheet

__all__ = ["markdown", "write_report", "write_sheet"]

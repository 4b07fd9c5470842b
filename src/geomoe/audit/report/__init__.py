"""An audit as a report: one page of HTML, and the same as JSON, LaTeX tables, PNG and SVG."""

from geomoe.audit.report.folder import check_folder, write_report

__all__ = ["check_folder", "write_report"]

"""One self-contained HTML page about runs."""

from simreal.report.page import write_report

__all__ = ["write_report"]

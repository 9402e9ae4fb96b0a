"""Metrics with intervals, negative controls, the report and the shortcut audit."""

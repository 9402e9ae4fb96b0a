"""Discrimination, calibration, decision, intervals and shortcut controls; pure functions."""

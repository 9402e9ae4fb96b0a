"""Typed items that stages yield, and the one sink that hands them to MLflow."""

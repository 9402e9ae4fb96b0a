"""Typed items that stages yield, and the one sink that logs them to MLflow."""

"""Causal language models on this machine: found by name, loaded offline."""

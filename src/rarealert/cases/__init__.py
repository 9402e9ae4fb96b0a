"""The case and its schema, sources, labels, rendering to text, splits and leakage."""

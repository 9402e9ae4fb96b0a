"""Every figure a reader is shown: pure functions on arrays, with their intervals and controls."""

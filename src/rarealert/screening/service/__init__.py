"""The promoted model behind HTTP: one visit at a time, batched across requests, never logged."""

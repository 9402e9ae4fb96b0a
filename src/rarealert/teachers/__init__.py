"""The answer schema, the panel, recorded answers, reasoners, and the rationale cache."""

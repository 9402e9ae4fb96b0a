"""One module a DVC stage: a docstring with its command, one function, a thin ``main``."""

STAGES = (
    "ingest",
    "validate",
    "split",
    "teach",
    "rationales",
    "align",
    "tune",
    "distil",
    "score",
    "evaluate",
    "register",
)
"""Every stage in the order of the graph; the name is the same everywhere."""

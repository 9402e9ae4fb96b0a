"""The stages of the pipeline: one module per DVC stage, with one function and a ``main``."""

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
"""Every stage in the order of the graph; each has the same name everywhere."""

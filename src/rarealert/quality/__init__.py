"""Data quality: expectations on a corpus, its profile, and drift against the pinned one."""

"""Data quality: profiles of a corpus, Great Expectations checks and their pages."""

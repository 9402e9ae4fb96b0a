"""Train, validation and test parts by disease, and the checks for leakage."""

"""From scores to calibrated risks with stated uncertainty, for ensemble and student."""

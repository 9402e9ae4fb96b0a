"""Features from answers, the weighing of teachers, calibration and out-of-fold targets."""

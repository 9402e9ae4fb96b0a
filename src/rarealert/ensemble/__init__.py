"""The ensemble: teachers' answers weighted and calibrated into one risk."""

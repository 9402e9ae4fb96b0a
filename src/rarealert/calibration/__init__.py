"""From log odds to calibrated risks, their intervals, sets and bands; arrays in, arrays out."""

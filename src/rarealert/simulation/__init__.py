"""The embedded corpus: simulated first visits drawn from disease profiles."""

"""RareAlert: a calibrated risk of rare disease from what a primary-care visit already holds.

Decision support, not a diagnosis.
"""

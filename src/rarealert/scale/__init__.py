"""Other machines: a Ray cluster joined. Needs ``pip install rarealert[ray]``."""

"""Registering, judging, comparing and promoting versions of the student."""

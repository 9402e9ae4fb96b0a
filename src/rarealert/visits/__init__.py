"""The visit: the case and its fields, its text, and its storage."""

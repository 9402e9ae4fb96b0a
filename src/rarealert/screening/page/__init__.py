"""The clinic page: one form, one answer, what to ask next; static files and the routes behind."""

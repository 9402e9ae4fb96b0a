"""The promoted model at work on a file of visits."""

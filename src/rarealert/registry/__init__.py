"""Gates, the model card, registration and promotion."""

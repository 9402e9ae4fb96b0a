"""The distilled model: encoding, LoRA, training, rationale generation and packaging."""

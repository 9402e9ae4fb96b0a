"""Language models behind OpenAI-compatible servers: prompt, reply, limits, and asking many."""

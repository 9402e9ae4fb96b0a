"""A causal language model that runs on this machine as a teacher."""

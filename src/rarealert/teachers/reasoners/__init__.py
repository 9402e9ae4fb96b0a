"""Nine reasoners over disease profiles, ontology and clinical clues."""

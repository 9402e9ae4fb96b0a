"""HPO, Orphanet, disease profiles, and finding recognition in free text."""

"""Decodes picture files: from their bytes to pixels of the training size."""

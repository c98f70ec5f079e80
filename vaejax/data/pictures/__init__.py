"""From the bytes of a picture file to pixels of the training size."""

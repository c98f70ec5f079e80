"""From picture files to arrays of the training size, once."""

"""Files of this machine: where they are, and that they are there whole or not at all."""

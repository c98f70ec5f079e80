"""Picture sources (folders, zips, arrays, CelebA, TFDS), and which of their files are used."""

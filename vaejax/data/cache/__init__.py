"""The cache of decoded pictures: arrays of the training size, built once and memory-mapped."""

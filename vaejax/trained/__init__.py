"""A trained model at work: load, encode, decode, sample, measure."""

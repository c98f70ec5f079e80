"""Uses of a trained model: load, encode, decode, sample, measure."""

"""Cuts arrays into batches, in an order that is a function of seed and step."""

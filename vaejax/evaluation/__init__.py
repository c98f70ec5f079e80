"""Evaluation of sets of pictures: what is measured of each picture, and how sets are compared."""

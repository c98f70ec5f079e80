"""The metrics of sets of pictures, one file each."""

"""What a run learns, one file for each task; `vaejax.training` is the loop over any of them."""

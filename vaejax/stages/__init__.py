"""What a run trains, in turn, and what follows: the model, priors of its codes, new faces."""

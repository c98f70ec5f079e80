"""The stages of a run: training the model, fitting priors to its codes, drawing new faces."""

"""A flow over the codes of a trained encoder, trained by flow matching."""

from vaejax.tasks.flow_prior.task import FlowPriorTask

__all__ = ["FlowPriorTask"]

"""A network that predicts the attributes of pictures, trained by their cross-entropy."""

from vaejax.tasks.attributes.task import NET, AttributeTask, attribute_task

__all__ = ["NET", "AttributeTask", "attribute_task"]

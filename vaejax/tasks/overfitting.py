"""A warning of overfitting, for tasks whose validation has a loss."""

# Ratio of a validation loss to the lowest one, above which the warning is given.
_OVERFITTED = 1.05


class OverfittingWatch:
    """Warns once, at the first validation whose loss is more than 5% above the lowest one."""

    def __init__(self, examples: str, remedy: str):
        """Starts without a validation and without a warning.

        Args:
          examples: what the loss is a mean over, such as `codes`, for the warning.
          remedy: the end of the warning.
        """
        self._examples, self._remedy = examples, remedy
        self._best, self._said = float("inf"), False

    def training(self, step: int, values: dict) -> list[str]:
        """Returns no warnings: only a validation shows overfitting."""
        return []

    def validation(self, train: dict | None, valid: dict) -> list[str]:
        """Returns the warning, at the first validation that shows overfitting."""
        self._best = min(self._best, valid["loss"])
        if self._said or valid["loss"] <= _OVERFITTED * self._best:
            return []
        self._said = True
        return [
            f"overfitting: the loss over the validation {self._examples} rose to "
            f"{valid['loss']:.3f} from its lowest value, {self._best:.3f}; {self._remedy}"
        ]

"""The settings of a run: their schema, their checks, and the forms in which they are written."""

from vaejax.config.schema import (
    CROPS,
    FITTED_PRIORS,
    RUN_MARK,
    Config,
    DataConfig,
    EvalConfig,
    LadderConfig,
    LikelihoodConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PriorConfig,
    TrainConfig,
    default_config,
    ladder_config,
    user_cache,
)

__all__ = [
    "CROPS",
    "FITTED_PRIORS",
    "RUN_MARK",
    "Config",
    "DataConfig",
    "EvalConfig",
    "LadderConfig",
    "LikelihoodConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PriorConfig",
    "TrainConfig",
    "default_config",
    "ladder_config",
    "user_cache",
]

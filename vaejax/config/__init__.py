"""The settings of a run: their schema, their checks, and the forms in which they are written."""

from vaejax.config.defaults import default_config, ladder_config
from vaejax.config.finish import FinishConfig
from vaejax.config.flow import FlowConfig
from vaejax.config.likelihoods import LocationScaleConfig, MixtureConfig
from vaejax.config.models import AttributesConfig, ConvConfig, LadderConfig, SpatialConfig
from vaejax.config.priors import (
    FITTED_PRIORS,
    CouplingFlowConfig,
    HierarchicalConfig,
    PriorConfig,
    StandardNormalConfig,
)
from vaejax.config.schema import (
    CROPS,
    Config,
    DataConfig,
    EvalConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
)

__all__ = [
    "CROPS",
    "FITTED_PRIORS",
    "AttributesConfig",
    "Config",
    "ConvConfig",
    "CouplingFlowConfig",
    "DataConfig",
    "EvalConfig",
    "FinishConfig",
    "FlowConfig",
    "HierarchicalConfig",
    "LadderConfig",
    "LocationScaleConfig",
    "MixtureConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PriorConfig",
    "SpatialConfig",
    "StandardNormalConfig",
    "TrainConfig",
    "default_config",
    "ladder_config",
]

"""The configs of the stages after the model: its config with their own optimiser and loop."""

import dataclasses

from vaejax.config import Config, OptimizerConfig

_MIN_BATCH, _MIN_STEPS = 64, 200
# Updates between two validations of a short flow prior; both dispatches divide it.
_FLOW_EVERY = 500
# Warm-up of the finish, in updates.
_FINISH_WARMUP = 50


def flow_config(config: Config, codes: int, devices: int, seed: int = 0) -> Config:
    """Returns the config of the flow prior's stage.

    Args:
      config: config of the model.
      codes: number of training codes.
      devices: number of devices that share the batch, which is rounded up to a multiple of it.
      seed: seed of the training.
    """
    flow, of_maps = config.flow.of(config.latent_shape), len(config.latent_shape) > 1
    # Updates in one dispatch. They need no data from the host, as each device holds all codes; but
    # a signal waits for their end, and an update of a transformer takes half a second on a CPU.
    dispatch = 10 if of_maps else 50
    # Fewer codes get fewer updates: with as many as for a large data set, the flow would overfit.
    epochs, most = (16, 20_000) if of_maps else (128, 2_000)
    steps = flow.steps or min(max(codes * epochs // flow.batch_size, _MIN_STEPS), most)
    steps = -(-steps // dispatch) * dispatch
    batch_size = min(max(codes, _MIN_BATCH), flow.batch_size)
    # At most about a hundred validations and checkpoints, however long the stage is.
    every = _FLOW_EVERY * max(1, steps // (100 * _FLOW_EVERY))
    optimizer = OptimizerConfig(
        learning_rate=flow.learning_rate,
        warmup_steps=steps // 20,
        final_fraction=0.0,
        b2=0.999,
        ema_decay=flow.ema_decay,
    )
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, on_device="always"),
        optimizer=optimizer,
        train=dataclasses.replace(
            config.train,
            steps=steps,
            batch_size=-(-batch_size // devices) * devices,
            accumulate=1,
            steps_per_dispatch=dispatch,
            seed=seed,
            log_every=100,
            eval_every=every,
            save_every=every,
        ),
    )


def finish_config(config: Config) -> Config:
    """Returns the config of the finish's stage, with the settings of validations of the model."""
    finish = config.finish
    every = max(1, finish.steps // finish.validations)
    train = dataclasses.replace(
        config.train,
        steps=finish.steps,
        batch_size=finish.batch_size,
        accumulate=1,
        steps_per_dispatch=1,
        eval_every=every,
        save_every=every,
    )
    # The second moment alone: with momentum, decoder and discriminator circle around each other.
    optimizer = dataclasses.replace(
        config.optimizer,
        name="adamw",
        warmup_steps=_FINISH_WARMUP,
        final_fraction=0.1,
        b1=0.0,
        b2=0.99,
        weight_decay=0.0,
        clip_norm=0.0,
        guard=5.0,
        ema_decay=finish.ema_decay,
    )
    return dataclasses.replace(config, train=train, optimizer=optimizer)

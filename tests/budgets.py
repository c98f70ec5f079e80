"""What the compiled step may cost: `python tests/budgets.py` records it for the compiler at hand.

A small model, so that a compiler needs seconds for it. Sizes may grow by `SLACK`; kinds of
collectives may not change, nor their number where the state is not split. Compilers differ in how
much memory their programs take, so each version has its own record; one without is held to the
most generous.
"""

import importlib.metadata
import json
import os
import pathlib
import sys
from collections import Counter

BUDGETS = pathlib.Path(__file__).with_name("budgets.json")
# Chips, and those that share one copy of the state.
PLACES = (("v5e:2x2", 1), ("v5e:2x2", 4), ("v6e:2x2", 1), ("v4:2x2x1", 1))
SLACK = 1.15


def step_cost(topology: str, fsdp: int):
    """The `Estimate` of the small model's step."""
    from tiny import tiny

    from vaejax.cost.compiled_step import estimate
    from vaejax.runtime.chips import topology_devices

    devices = topology_devices(topology)
    train = {"batch_size": 8 * len(devices), "fsdp": fsdp}
    return estimate(tiny(model={"blocks": (0, 1)}, prior={"layers": 1}, train=train), devices)


def summary(cost) -> dict:
    """What is kept of it."""
    return {
        "memory": cost.memory,
        "collectives": dict(sorted(Counter(one.kind for one in cost.collectives).items())),
        "exchanged": sum(one.result for one in cost.collectives),
    }


def budget(topology: str, fsdp: int) -> dict:
    """What is recorded for the compiler that is installed."""
    recorded, name = json.loads(BUDGETS.read_text()), _name(topology, fsdp)
    version = importlib.metadata.version("libtpu")
    return recorded.get(version, {}).get(name) or max(
        (record[name] for record in recorded.values()), key=lambda record: record["memory"]
    )


def _name(topology: str, fsdp: int) -> str:
    return f"{topology} fsdp={fsdp}"


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.path.insert(0, str(BUDGETS.parents[1]))
    recorded = json.loads(BUDGETS.read_text())
    recorded[importlib.metadata.version("libtpu")] = {
        _name(*place): summary(step_cost(*place)) for place in PLACES
    }
    BUDGETS.write_text(json.dumps(recorded, indent=2) + "\n")
    print(BUDGETS.read_text())

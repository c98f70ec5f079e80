"""Recorded costs of the compiled training step, which `test_aot.py` compares with present ones.

`python tests/budgets.py` records the costs for the installed compiler. The model is small, so that
it compiles in seconds. Sizes may exceed the record by the factor `SLACK`; the kinds of collectives
must not change. Compilers differ in the memory of their programs, so each version of libtpu has its
own record; a version without a record may use as much as the most generous one.
"""

import importlib.metadata
import json
import os
import pathlib
import sys
from collections import Counter

BUDGETS = pathlib.Path(__file__).with_name("budgets.json")
# Topology of the chips, and the number of chips that share one copy of the state.
PLACES = (("v5e:2x2", 1), ("v5e:2x2", 4), ("v4:2x2x1", 1))
SLACK = 1.15


def step_cost(topology: str, fsdp: int):
    """Returns the `Estimate` of the small model's training step."""
    from tiny import tiny

    from vaejax.cost.compiled_step import estimate
    from vaejax.runtime.chips import topology_devices

    devices = topology_devices(topology)
    train = {"batch_size": 8 * len(devices), "fsdp": fsdp}
    return estimate(tiny(model={"blocks": (0, 1)}, prior={"layers": 1}, train=train), devices)


def summary(cost) -> dict:
    """Returns the figures of an `Estimate` that are recorded."""
    return {
        "memory": cost.memory,
        "collectives": dict(sorted(Counter(one.kind for one in cost.collectives).items())),
        "exchanged": sum(one.result for one in cost.collectives),
    }


def budget(topology: str, fsdp: int) -> dict:
    """Returns the record of the installed compiler, else the record with the most memory."""
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

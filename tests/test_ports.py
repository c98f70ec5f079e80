"""The two ports of process 0 in runs whose processes JAX finds by itself."""

import os
import socket

import pytest
from commands import free_pair

from vaejax.errors import UserError
from vaejax.runtime import ports


@pytest.mark.parametrize("which", [0, 1])
def test_a_port_that_is_taken_is_named_with_the_remedy(which, monkeypatch):
    """`which` is 0 for the port of JAX, and 1 for the next one, that of vaejax."""
    port = free_pair()
    monkeypatch.setenv("JAX_COORDINATOR_PORT", str(port))
    monkeypatch.setenv("SLURM_PROCID", "0")
    variable = ("JAX_COORDINATOR_PORT", "VAEJAX_PORT")[which]
    message = f"port {port + which} of .* cannot be opened .* set {variable} to another"
    with socket.create_server(("", port + which)), pytest.raises(UserError, match=message):
        ports.choose_port()


def test_the_ports_are_the_default_ones_or_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")  # only process 0 checks that the ports are free
    for name in ("JAX_COORDINATOR_PORT", "VAEJAX_PORT"):
        monkeypatch.setenv(name, "")  # else the value that `choose_port` sets would stay
    assert ports.choose_port() == 8477 and os.environ["JAX_COORDINATOR_PORT"] == "8476"
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "5000")
    assert ports.choose_port() == 5001 and os.environ["JAX_COORDINATOR_PORT"] == "5000"
    monkeypatch.setenv("VAEJAX_PORT", "8474")
    assert ports.choose_port() == 8474 and os.environ["JAX_COORDINATOR_PORT"] == "5000"


@pytest.mark.parametrize("value", ["no", "0", "65536", "-1", "8476.0", "²"])
@pytest.mark.parametrize("variable", ["JAX_COORDINATOR_PORT", "VAEJAX_PORT"])
def test_a_value_that_is_no_port_is_named(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"{variable}={value} is no port"):
        ports.choose_port()


def test_the_two_ports_must_differ(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "8477")
    monkeypatch.setenv("VAEJAX_PORT", "8477")
    with pytest.raises(UserError, match="VAEJAX_PORT=8477 is JAX_COORDINATOR_PORT too"):
        ports.choose_port()

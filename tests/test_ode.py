"""The solver of ordinary differential equations, against closed forms and its order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from vaejax.priors.ode import solve


def oscillator(state, time):
    """The field of x'' = -x with a forcing, and of a second variable that depends on the time."""
    place, speed = state["place"]
    return {"place": jnp.stack([speed, -place]), "other": jnp.cos(time) * state["other"]}


START = {"place": jnp.array([1.0, 0.0]), "other": jnp.array([2.0])}


@pytest.mark.parametrize(("start", "end"), [(0.0, 2.0), (2.0, -1.0)])
def test_solutions_are_those_in_closed_form(start, end):
    found = jax.jit(lambda state: solve(oscillator, state, start, end, 40))(START)
    passed = end - start
    np.testing.assert_allclose(found["place"], [np.cos(passed), -np.sin(passed)], atol=2e-6)
    np.testing.assert_allclose(found["other"], 2 * np.exp(np.sin(end) - np.sin(start)), rtol=2e-6)


def test_the_error_falls_with_the_fourth_power_of_the_step():
    exact = scipy.integrate.solve_ivp(
        lambda time, x: [x[1], -x[0]], (0, 3), START["place"], rtol=1e-10, atol=1e-12
    ).y[:, -1]
    errors = [
        np.linalg.norm(solve(oscillator, START, 0.0, 3.0, steps)["place"] - exact)
        for steps in (3, 6)
    ]
    assert 12 < errors[0] / errors[1] < 22

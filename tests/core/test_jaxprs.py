"""What `_operators` expects of JAX's traced programs; the names are pinned in test_contract.py."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, Var


def test_closed_jaxprs_are_evaluated_and_hoisted():
    """make_jaxpr gives closed-over arrays, tracers too, as constants; eval_jaxpr takes others."""
    c = jnp.arange(3.0)
    closed = jax.make_jaxpr(lambda v: c * v)(jax.ShapeDtypeStruct((3,), jnp.float64))
    assert [o.shape for o in closed.out_avals] == [(3,)]
    assert closed.out_avals[0].dtype == jnp.float64
    (out,) = jax.core.eval_jaxpr(closed.jaxpr, closed.consts, jnp.ones(3))
    np.testing.assert_array_equal(out, c)

    def slope(theta):
        inner = jax.make_jaxpr(lambda v: theta * c * v)(jax.ShapeDtypeStruct((3,), jnp.float64))
        assert any(isinstance(k, jax.core.Tracer) for k in inner.consts)
        return jnp.sum(jax.core.eval_jaxpr(inner.jaxpr, inner.consts, jnp.ones(3))[0])

    np.testing.assert_allclose(jax.grad(slope)(2.0), 3.0)
    np.testing.assert_allclose(jax.jit(jax.grad(slope))(2.0), 3.0)


def test_jaxprs_are_rewritten():
    """An equation with another operand, in a jaxpr with one more constant."""
    closed = jax.make_jaxpr(lambda v: 2.5 * jnp.sin(v))(jnp.ones(3))
    first, last = closed.jaxpr.eqns
    literal, old = last.invars
    assert isinstance(literal, Literal)
    assert literal.val == 2.5
    assert not literal.aval.weak_type
    variable = Var(literal.aval)
    equations = [first, last.replace(invars=[variable, old])]
    made = closed.jaxpr.replace(constvars=[variable], eqns=equations)
    (out,) = jax.core.eval_jaxpr(made, [np.float64(4.0)], jnp.ones(3))
    np.testing.assert_array_equal(out, 4 * jnp.sin(jnp.ones(3)))
    assert first.params.keys() == {"accuracy"}
    assert not first.effects
    assert first.ctx == last.ctx
    assert hash(first.outvars[0].aval) == hash(old.aval)


def test_types_that_are_compared_by_name():
    """They have no public name: see `fingerprint.py`, `comparison.py`, `hoisting.py`."""
    closed = jax.make_jaxpr(jax.jit(lambda x: jax.nn.relu(x)))(jnp.ones(3))
    (call,) = closed.jaxpr.eqns
    assert call.primitive.name == "jit"
    assert {type(s).__name__ for s in call.params["in_shardings"]} == {"UnspecifiedValue"}
    assert call.params["ctx_mesh"].empty
    assert type(call.ctx).__name__ == "JaxprEqnContext"
    (relu,) = [e for e in call.params["jaxpr"].jaxpr.eqns if "call_jaxpr" in e.params]
    rule = relu.params["jvp_jaxpr_fun"]
    assert type(rule).__name__ == "WrappedFun"
    assert {"f", "transforms", "params", "in_type", "stores"} <= set(rule.__slots__)
    assert rule.f.__qualname__ == "_memoize.<locals>.memoized"
    assert "fn" in inspect.getclosurevars(rule.f).nonlocals
    assert type(jax.jit(jnp.sin)).__name__ == "PjitFunction"

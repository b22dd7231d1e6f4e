"""What the package relies on: names of JAX that may move, and its own layers.

The first part pins every name of ``jax.extend``, ``jax.interpreters`` and other corners of JAX that
the package uses, and what it expects of them; when a release of JAX breaks one, this file says
which. The second part walks the imports.
"""

import ast
import functools
import graphlib
import inspect
import pathlib
import re
import subprocess
import sys
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_peig

PACKAGE = pathlib.Path(jax_peig.__file__).parent

# -- names of JAX ---------------------------------------------------------------------------------


def attributes_used() -> set[str]:
    """Dotted JAX names in the package's code, resolved through its imports."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = local_names(nodes)
        found.update(name for name in names.values() if "." in name)
        found.update(dotted(node, names) for node in nodes if isinstance(node, ast.Attribute))
    return {name for name in found if name.startswith("jax.")}


def local_names(nodes) -> dict[str, str]:
    """What each name that a module imports stands for."""
    names = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def dotted(node, names) -> str:
    """The full name of an attribute of an imported module; "" of any other."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id in names:
        return ".".join([names[node.id], *reversed(parts)])
    return ""


# jax.numpy, jax.lax, jax.random and the transformations are as stable as JAX itself.
EVERYDAY = (
    "jax.numpy",
    "jax.lax",
    "jax.random",
    "jax.tree",
    "jax.tree_util",
    "jax.scipy",
    "jax.debug",
    "jax.flatten_util",
    "jax.config",
)
TRANSFORMATIONS = {
    "jax.Array",
    "jax.ShapeDtypeStruct",
    "jax.block_until_ready",
    "jax.checkpoint",
    "jax.closure_convert",
    "jax.custom_jvp",
    "jax.custom_vjp",
    "jax.disable_jit",
    "jax.eval_shape",
    "jax.grad",
    "jax.jit",
    "jax.jvp",
    "jax.linear_transpose",
    "jax.make_jaxpr",
    "jax.value_and_grad",
    "jax.vjp",
    "jax.vmap",
}
PINNED = {
    "jax.__version_info__",
    "jax.core.ShapedArray",
    "jax.core.Trace",
    "jax.core.Tracer",
    "jax.core.eval_jaxpr",
    "jax.custom_batching.custom_vmap",
    "jax.default_backend",
    "jax.device_count",
    "jax.custom_derivatives.SymbolicZero",
    "jax.dtypes.canonicalize_dtype",
    "jax.dtypes.prng_key",
    "jax.errors.ConcretizationTypeError",
    "jax.errors.NonConcreteBooleanIndexError",
    "jax.errors.TracerArrayConversionError",
    "jax.errors.TracerBoolConversionError",
    "jax.errors.TracerIntegerConversionError",
    "jax.experimental.sparse.BCOO",
    "jax.extend.core.ClosedJaxpr",
    "jax.extend.core.Jaxpr",
    "jax.extend.core.JaxprEqn",
    "jax.extend.core.Literal",
    "jax.extend.core.Primitive",
    "jax.extend.core.Var",
    "jax.interpreters.ad",
    "jax.interpreters.ad.Zero",
    "jax.interpreters.ad.primitive_jvps",
    "jax.interpreters.ad.primitive_transposes",
    "jax.interpreters.batching",
    "jax.interpreters.batching.primitive_batchers",
    "jax.interpreters.mlir",
    "jax.interpreters.mlir.lower_fun",
    "jax.pure_callback",
    "jax.interpreters.mlir.register_lowering",
    "jax.sharding.AbstractMesh",
    "jax.sharding.AxisType",
    "jax.sharding.Mesh",
    "jax.sharding.NamedSharding",
    "jax.sharding.PartitionSpec",
    "jax.sharding.auto_axes",
    "jax.typeof",
}


def test_the_list_of_names_is_complete():
    """A new corner of JAX gets a test here."""
    corners = set()
    for name in attributes_used():
        if any(name == e or name.startswith(e + ".") for e in EVERYDAY):
            continue
        if any(name == t or name.startswith(t + ".") for t in TRANSFORMATIONS):
            continue
        corners.add(name)
    # Not pinned themselves: the modules on the way to a name, the methods of one that is.
    modules = {c for c in corners if any(other.startswith(c + ".") for other in corners)}
    methods = {c for c in corners if any(c.startswith(p + ".") for p in PINNED)}
    assert corners - (modules | methods) | (corners & PINNED) == PINNED


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_names_exist(name):
    module, _, attribute = name.rpartition(".")
    try:
        owner = __import__(module, fromlist=[attribute])
    except ModuleNotFoundError:
        outer, _, inner = module.rpartition(".")
        owner = getattr(__import__(outer, fromlist=[inner]), inner)
    if not hasattr(owner, attribute):  # a submodule
        __import__(name)
    assert getattr(owner, attribute) is not None


def test_a_rule_for_batches():
    """That of `_blocks.one_by_one`, where it is needed: it is called at every level of vmap."""
    assert jax.__version_info__[:2] >= (0, 10)
    sizes = []

    @jax.custom_batching.custom_vmap
    def double(x):
        return 2 * x, x

    @double.def_vmap
    def rule(size, batched, xs):
        sizes.append(size)
        return jax.lax.map(double, xs), (True, True)

    xs = jnp.arange(6.0).reshape(2, 3)
    twice, same = jax.jit(jax.vmap(jax.vmap(double)))(xs)
    np.testing.assert_array_equal(twice, 2 * xs)
    np.testing.assert_array_equal(same, xs)
    assert set(sizes) == {2, 3}


def test_a_primitive_with_all_its_rules():
    """A doubling primitive, through every transformation that the package's own goes through."""
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    double_p = Primitive("contract_test_double")
    double_p.multiple_results = True
    seen = []

    def evaluate(*arguments, factor):
        return [factor * a for a in arguments]

    @double_p.def_impl
    def _(*arguments, **params):
        seen.append("impl")
        return evaluate(*arguments, **params)

    @double_p.def_abstract_eval
    def _(*avals, factor):
        return [jax.core.ShapedArray(a.shape, a.dtype) for a in avals]

    def jvp(primals, tangents, *, factor):
        # Zeros are symbolic, and are instances of exactly ad.Zero.
        seen.append(tuple(type(t) is ad.Zero for t in tangents))
        out = double_p.bind(*primals, factor=factor)
        active = [t for t in tangents if type(t) is not ad.Zero]
        pushed = iter(double_p.bind(*active, factor=factor))
        full = [
            jnp.zeros_like(o) if type(t) is ad.Zero else next(pushed)
            for o, t in zip(out, tangents, strict=True)
        ]
        return out, full

    def transpose(cotangents, *arguments, factor):
        # One cotangent for each output (ad.Zero where none), one result for each argument.
        seen.append("transpose")
        assert all(ad.is_undefined_primal(a) for a in arguments)
        return [
            None if type(ct) is ad.Zero else double_p.bind(ct, factor=factor)[0]
            for ct in cotangents
        ]

    def batch(arguments, dims, *, factor):
        # None says that an argument is not batched.
        seen.append(tuple(dims))
        return double_p.bind(*arguments, factor=factor), list(dims)

    mlir.register_lowering(double_p, mlir.lower_fun(evaluate, multiple_results=True))
    ad.primitive_jvps[double_p] = jvp
    ad.primitive_transposes[double_p] = transpose
    batching.primitive_batchers[double_p] = batch

    def double(x, y):
        return double_p.bind(x, y, factor=2.0)

    x, y = jnp.arange(3.0), jnp.ones(2)
    for out in (double(x, y), jax.jit(double)(x, y)):
        np.testing.assert_array_equal(out[0], 2 * x)
        np.testing.assert_array_equal(out[1], 2 * y)
    assert "impl" in seen

    out, tangents = jax.jvp(lambda x: double(x, y), (x,), (jnp.ones(3),))
    np.testing.assert_array_equal(tangents[0], 2 * np.ones(3))
    np.testing.assert_array_equal(tangents[1], np.zeros(2))
    assert (False, True) in seen

    gradient = jax.grad(lambda x, y: jnp.sum(double(x, y)[0]), argnums=(0, 1))(x, y)
    np.testing.assert_array_equal(gradient[0], 2 * np.ones(3))
    np.testing.assert_array_equal(gradient[1], np.zeros(2))
    assert "transpose" in seen

    batched = jax.vmap(lambda x: double(x, y), out_axes=[0, None])(jnp.stack([x, x + 1]))
    np.testing.assert_array_equal(batched[0][1], 2 * (x + 1))
    assert (0, None) in seen


def test_symbolic_zeros_of_a_custom_jvp():
    """An argument that does not move has a tangent of exactly the type SymbolicZero."""
    from jax.custom_derivatives import SymbolicZero

    seen = []

    @functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
    def f(options, x, tree):
        return x

    def rule(options, primals, tangents):
        x_dot, tree_dot = tangents
        seen.append((type(x_dot) is SymbolicZero, type(tree_dot["c"]) is SymbolicZero))
        out = primals[0]
        moved = [d for d in (x_dot, tree_dot["c"]) if type(d) is not SymbolicZero]
        return out, sum(moved[1:], moved[0]) if moved else jnp.zeros_like(out)

    f.defjvp(rule, symbolic_zeros=True)
    for outer in (lambda g: g, jax.jit):
        run = outer(jax.grad(lambda x: f("options", x, {"c": jnp.ones(())})))
        assert run(1.0) == 1
        assert seen[-1] == (False, True)
        run = outer(jax.grad(lambda c: f("options", jnp.ones(()), {"c": c})))
        assert run(1.0) == 1
        assert seen[-1] == (True, False)


def test_pytree_structures_compare_by_value():
    """What the cache of compiled programs goes by."""
    first = jax.tree_util.Partial(jnp.add, jnp.ones(3))
    second = jax.tree_util.Partial(jnp.add, jnp.zeros(4))
    one, two = jax.tree.structure(first), jax.tree.structure(second)
    assert one == two
    assert hash(one) == hash(two)
    assert jax.tree_util.treedef_is_leaf(jax.tree.structure(1.0))
    assert not jax.tree_util.treedef_is_leaf(one)


def test_scipys_solvers_have_the_options_in_use():
    from jax.scipy.sparse import linalg

    assert {"tol", "atol", "maxiter", "M"} <= set(inspect.signature(linalg.cg).parameters)
    assert {"tol", "atol", "maxiter", "M", "restart"} <= set(
        inspect.signature(linalg.gmres).parameters
    )


def test_canonical_dtypes():
    assert jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    assert jax.dtypes.canonicalize_dtype(complex) == np.complex128


# -- the layers -----------------------------------------------------------------------------------

# The order is written down once, in the package's README: a part imports only from those before it.
README = (PACKAGE / "README.md").read_text()
ORDER = re.search(r"```layers\n(.*?)```", README, re.DOTALL).group(1)
LAYERS = [re.findall(r"\w+", step) for step in ORDER.split("->")]
RANK = {name: i for i, names in enumerate(LAYERS) for name in names}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: pathlib.Path) -> tuple[str, ...]:
    """``("_eigensolvers", "lobpcg")`` for jax_peig/_eigensolvers/lobpcg.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts


def imports_of(path: pathlib.Path) -> set[tuple[str, ...]]:
    """Modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] != "jax_peig":
                continue
            inside = tuple(parts[1:]) or ("__init__",)
            while inside and not exists(inside):
                inside = inside[:-1]
            found.add(inside or ("__init__",))
    return found


def exists(parts: tuple[str, ...]) -> bool:
    path = PACKAGE.joinpath(*parts)
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def name(path: pathlib.Path) -> str:
    return "/".join(module_of(path))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nobody_imports_the_private_parts_of_jax(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        for imported in names:
            assert "_src" not in imported.split("."), imported


def test_imports_point_back_along_the_arrows():
    for path in SOURCES:
        own = module_of(path)
        for imported in imports_of(path):
            if imported[0] != own[0]:
                assert RANK[imported[0]] < RANK[own[0]], f"{own} imports {imported}"
    assert set(RANK) == {module_of(path)[0] for path in SOURCES}


def test_the_picture_shows_every_module_in_its_folder():
    (picture,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    shown, folder = set(), ""
    for line in picture.splitlines():
        name, rest = line[:22].strip(), line[22:]
        if name and not name.endswith("/"):
            shown.add((name,))
            continue
        folder = name.removesuffix("/") or folder
        shown |= {(folder, module) for module in rest.split(":")[-1].split()}
    kept = {module_of(path) for path in SOURCES}
    assert shown == {module for module in kept if module[-1] not in ("__init__", "__main__")}


def test_no_two_modules_import_each_other():
    graph = {module_of(path): imports_of(path) for path in SOURCES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_eigensolvers_do_not_know_each_other():
    methods = {"dense", "chebyshev", "lobpcg", "davidson"}
    for method in methods:
        for imported in imports_of(PACKAGE / "_eigensolvers" / f"{method}.py"):
            assert imported[-1] not in methods, (method, imported)


def test_no_folder_is_crowded():
    for folder in {path.parent for path in SOURCES}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= 14, folder


def test_no_file_is_long():
    for path in [*SOURCES, *(PACKAGE.parent / "tests").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 500, path


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_array_is_made_at_import(path):
    """A module-level jnp array would start a device at import, and freeze a dtype."""
    tree = ast.parse(path.read_text())
    outside = [
        node
        for node in tree.body
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom))
    ]
    outside += [
        node
        for parent in tree.body
        if isinstance(parent, ast.ClassDef)
        for node in parent.body
        if not isinstance(node, ast.FunctionDef)
    ]
    for statement in outside:
        if isinstance(statement, ast.If):  # if __name__ == "__main__"
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert not called.startswith(("jnp.", "jax.numpy.", "jax.random.")), called


def test_importing_makes_no_array_and_no_warning():
    """In a fresh interpreter: no device is touched, no option of JAX is changed."""
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import jax\n"
        "before = jax.config.values.copy()\n"
        "import jax_peig\n"
        "assert jax.config.values == before\n"
        "assert not jax.live_arrays()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr


def test_public_names():
    """The front page says what there is, each name once, by ``from ._x import name as name``."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    public = []
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            continue
        assert isinstance(node, ast.ImportFrom), ast.unparse(node)
        for alias in node.names:
            assert alias.asname == alias.name
            public.append(alias.name)
    assert len(set(public)) == len(public)
    promised = {"partial_eigh", "PartialEigh", "Derivative", "BlockProduct", "project_gauge"}
    assert promised <= set(public)
    for public_name in public:
        assert getattr(jax_peig, public_name).__doc__
    assert (PACKAGE / "py.typed").exists()


def test_the_version_stands_in_one_place():
    """In the package, where the build reads it; "Changes" begins with it."""
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["hatch"]["version"]["path"] == "jax_peig/__init__.py"
    changes = (PACKAGE.parent / "README.md").read_text().partition("\n## Changes\n")[2]
    assert changes.strip().startswith(f"{jax_peig.__version__} ")

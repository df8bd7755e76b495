"""The rules of the house: floors, private names, sizes, examples."""

import ast
import doctest
import functools
import importlib
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_gnc

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "tf_gnc"

# A file imports from lower floors, and from its own folder; the ground floor
# imports nothing of ours. A new file or folder must choose its floor here.
FLOORS = {
    0: [
        "_batch",
        "_check",
        "_files",
        "_keras_compat",
        "_registration",
        "_version",
        "_versions",
        "layers",
        "threads",
    ],
    1: [
        "_settings",
        "data",
        "launch",
        "losses",
        "models",
        "noise",
        "optimizers",
        "schedules",
        "store",
    ],
    2: ["distribute"],
    3: ["step"],
    4: ["analysis"],
    5: ["callbacks", "doctor"],
    6: ["experiments"],
    7: ["cli"],
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}

MAX_FOLDER_FILES = 16
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 50

# Why an `Example:` of theirs can't be run.
UNTESTED_EXAMPLES = {
    "tf_gnc.threads.set_threads": "it must come before TensorFlow starts",
}

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text()
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {module: ast.parse(source) for module, source in SOURCES.items()}
EVERY_MODULE = pytest.mark.parametrize("module", SOURCES)


def _room(module):
    """The name in `FLOORS`: what follows `tf_gnc.`, or None for itself."""
    parts = module.removesuffix(".__init__").split(".")
    return parts[1] if len(parts) > 1 else None


def _imports(tree):
    """All modules that a file imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def _floor_breaches(module, tree):
    """The imports of a file that its floor does not allow."""
    room = _room(module)
    floor = FLOOR_OF[room]
    breaches = []
    for name in _imports(tree):
        if name.split(".")[0] != "tf_gnc":
            continue
        other = _room(name)
        # The package itself, or a name that it collects, is above everybody.
        if other != room and FLOOR_OF.get(other, 99) >= floor:
            breaches.append(name)
    return breaches


@EVERY_MODULE
def test_floors__each_file__has_one_and_imports_from_lower_ones(module):
    if _room(module) is None:
        return  # the package collects the public names of all floors
    assert _room(module) in FLOOR_OF, f"choose a floor for {module}"
    assert _floor_breaches(module, TREES[module]) == []


def _imported_files(module):
    """The files of ours that a file imports outside its functions."""
    found = set()
    for node in TREES[module].body:
        for name in _imports(node) if not _is_definition(node) else ():
            parts = name.split(".")
            for end in range(len(parts), 1, -1):
                path = ".".join(parts[:end])
                file = next(
                    (f for f in (path, f"{path}.__init__") if f in SOURCES),
                    None,
                )
                if file:
                    found.add(file)
                    break
    return found - {module}


def _is_definition(node):
    return isinstance(node, ast.FunctionDef | ast.ClassDef)


def test_imports__followed_from_file_to_file__come_back_to_none():
    left = {module: _imported_files(module) for module in SOURCES}
    while True:
        done = [module for module, needs in left.items() if not needs]
        if not done:
            break
        for module in done:
            del left[module]
        for needs in left.values():
            needs.difference_update(done)
    assert left == {}, "these files import each other"


def test_sizes__each_folder__has_few_enough_files():
    folders = [p for p in PACKAGE.rglob("*") if p.is_dir()]
    for folder in [PACKAGE, *folders]:
        assert len(list(folder.glob("*.py"))) <= MAX_FOLDER_FILES, folder


@pytest.mark.parametrize(
    ("module", "line", "allowed"),
    [
        ("tf_gnc.step.plan", "from tf_gnc import _keras_compat", True),
        ("tf_gnc.step.plan", "from tf_gnc import callbacks", False),
        ("tf_gnc.step.plan", "from tf_gnc.noise import NoiseRule", True),
        ("tf_gnc.step.plan", "from tf_gnc import GradientNoise", False),
        ("tf_gnc.step.plan", "import tf_gnc", False),
        ("tf_gnc.step.plan", "def f():\n    import tf_gnc.callbacks", False),
        ("tf_gnc.step.plan", "from tf_gnc.step.reduction import Sums", True),
        ("tf_gnc.threads", "from tf_gnc import _check", False),
        ("tf_gnc.data.load", "from tf_gnc.data import registry", True),
        ("tf_gnc.data.load", "from tf_gnc.models import MODELS", False),
        ("tf_gnc.callbacks.__init__", "from tf_gnc.step import trainer", True),
    ],
)
def test_floors__a_line_of_code__is_judged_as_the_rule_says(
    module, line, allowed
):
    assert (_floor_breaches(module, ast.parse(line)) == []) == allowed


def _private_names(tree):
    """Private modules of Keras and TensorFlow that a file names in code."""
    private = re.compile(
        r"(keras\.src|tensorflow\.python|(tf|tensorflow|keras)\.__?internal)"
        r"\b|.*\.__internal__"
    )
    names = list(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.append(ast.unparse(node))
        elif isinstance(node, ast.Call):  # importlib.import_module("...")
            names += [
                a.value
                for a in node.args
                if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
    return [name for name in names if private.match(name)]


@EVERY_MODULE
def test_private_names__of_keras_and_tensorflow__stand_in_one_folder(module):
    found = _private_names(TREES[module])
    if module == "tf_gnc._keras_compat.data":
        assert found  # the search finds what there is to find
    elif _room(module) != "_keras_compat":
        assert found == []


@EVERY_MODULE
def test_private_attributes__of_others__stand_in_one_folder(module):
    # An attribute with a leading underscore that no file of ours defines must
    # be somebody else's.
    used = {
        node.attr
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Attribute)
        and re.match(r"_(?!_)", node.attr)
        and isinstance(node.ctx, ast.Load)
    }
    foreign = used - _defined_here() - {"_asdict", "_replace", "_fields"}
    if module == "tf_gnc._keras_compat.step":
        assert "_symbolic_build" in foreign
    elif _room(module) != "_keras_compat":
        assert foreign == set()


@functools.cache
def _defined_here():
    """All names that the package's own files define."""
    names = {part for module in SOURCES for part in module.split(".")}
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute):
                if isinstance(node.ctx, ast.Store):
                    names.add(getattr(node, "attr", getattr(node, "id", None)))
    # What the file for private names puts into Keras's objects isn't ours.
    return names - {"_all_reduce_sum_gradients"}


@EVERY_MODULE
def test_sizes__each_file__fits_on_a_few_screens(module):
    num_lines = len(SOURCES[module].splitlines())
    assert num_lines <= MAX_FILE_LINES, f"{module}: {num_lines} lines"


@EVERY_MODULE
def test_sizes__each_function__fits_on_one_screen_without_docstring(module):
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                text = node.body[0]
                length -= text.end_lineno - text.lineno + 1
            where = f"{module}.{node.name}: {length} lines"
            assert length <= MAX_FUNCTION_LINES, where


def test_setup_py__only_a_shim__has_two_lines():
    assert (ROOT / "setup.py").read_text().splitlines() == [
        "from setuptools import setup",
        "setup()",
    ]


@functools.cache
def _docstrings(module):
    """Pairs of a dotted name and its docstring."""

    def visit(name, node):
        yield name, ast.get_docstring(node) or ""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield from visit(f"{name}.{child.name}", child)

    return list(visit(module.removesuffix(".__init__"), TREES[module]))


@EVERY_MODULE
def test_examples__each_that_is_announced__can_be_run(module):
    for name, text in _docstrings(module):
        if name in UNTESTED_EXAMPLES:
            assert ">>>" not in text
        elif re.search(r"^Examples?:", text, re.MULTILINE):
            example = re.split(r"^Examples?:", text, flags=re.MULTILINE)[1]
            assert ">>> " in example, name


def _has_examples(module):
    return any(">>> " in text for _, text in _docstrings(module))


WITH_EXAMPLES = list(filter(_has_examples, SOURCES))


def test_examples__modules_that_users_read_first__have_some():
    assert {
        "tf_gnc._check",
        "tf_gnc.callbacks.switch_noise",
        "tf_gnc.noise.layout",
        "tf_gnc.models.__init__",
        "tf_gnc.noise.gradient",
        "tf_gnc.optimizers.momentum",
        "tf_gnc.schedules.paper",
        "tf_gnc.step.train_step",
        "tf_gnc.step.workers",
    } <= set(WITH_EXAMPLES)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples__run__show_what_they_say(module):
    module = importlib.import_module(module.removesuffix(".__init__"))
    names = {"np": np, "tf": tf, "keras": keras}
    names.update({name: getattr(tf_gnc, name) for name in tf_gnc.__all__})
    printed = []
    runner = doctest.DocTestRunner()
    finder = doctest.DocTestFinder()
    # A module's own names come before the package's.
    for test in finder.find(module, globs={**names, **vars(module)}):
        runner.run(test, out=printed.append)
    assert runner.tries > 0
    assert runner.failures == 0, "".join(printed)

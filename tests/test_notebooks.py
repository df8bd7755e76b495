"""The notebooks: fresh, and each runs at its small size, without network."""

import ast
import contextlib
import functools
import importlib.util
import os
import pathlib
import re
import sys
from importlib import metadata

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import tf_gnc

COLAB = pathlib.Path(__file__).parents[1] / "colab"
NAMES = ["multi_device", "quickstart", "what_the_noise_does"]
EVERY_NOTEBOOK = pytest.mark.parametrize("name", NAMES)
# For a kernel that hangs; a notebook takes half a minute at most.
CELL_TIMEOUT, TIMEOUT = 120, 240


def _read(name):
    return nbformat.read(COLAB / f"{name}.ipynb", nbformat.NO_CONVERT)


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _trees(name):
    """The syntax of a notebook's code, with `%pip` as a call."""
    transform = TransformerManager().transform_cell
    return [ast.parse(transform(c.source)) for c in _code(_read(name))]


def _run(notebook, folder, monkeypatch):
    """Executes a notebook at its small size in a kernel of its own."""
    for variable in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(folder / "jupyter"))
    monkeypatch.setenv("TF_GNC_NOTEBOOK_SIZE", "small")
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "data"))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # figures are outputs
    for variable in ("http_proxy", "https_proxy"):  # nobody listens there
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    # No registered kernel has a say: the one of this very Python it is.
    specs = KernelSpecManager(kernel_dirs=[])
    assert specs.get_kernel_spec("python3").argv[0] == sys.executable
    manager = KernelManager(kernel_spec_manager=specs)
    try:
        NotebookClient(
            notebook,
            km=manager,
            timeout=CELL_TIMEOUT,
            shutdown_kernel="immediate",
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    finally:
        with contextlib.suppress(RuntimeError):  # It has ended, as it should.
            manager.shutdown_kernel(now=True)
    return notebook


def _printed(notebook, cell_id):
    """What a cell has printed."""
    (cell,) = [cell for cell in notebook.cells if cell.id == cell_id]
    outputs = [o for o in cell.outputs if o.output_type == "stream"]
    return "".join(o.text for o in outputs if o.name == "stdout")


def _figures(notebook):
    """The ids of the cells that have shown a figure."""
    return [
        cell.id
        for cell in _code(notebook)
        if any("image/png" in o.get("data", {}) for o in cell.outputs)
    ]


def test_notebooks__in_the_folder__are_those_that_are_tested():
    assert sorted(path.stem for path in COLAB.glob("*.ipynb")) == NAMES
    readme = (COLAB / "README.md").read_text()
    assert all(f"`{name}.ipynb`" in readme for name in NAMES)


@EVERY_NOTEBOOK
def test_notebook__as_a_file__is_valid_and_stripped(name):
    notebook = _read(name)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    assert not any(cell.metadata for cell in notebook.cells)
    for cell in _code(notebook):
        assert cell.outputs == [] and cell.execution_count is None
    for cell in notebook.cells:  # named by hand, so that changes are small
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cell.id)
        lines = cell.source.splitlines()
        assert [ln for ln in lines if len(ln) > 80 and "badge" not in ln] == []


@EVERY_NOTEBOOK
def test_notebook__first_cells__have_title_badge_and_install(name):
    notebook = _read(name)
    title, first = notebook.cells[0].source, _code(notebook)[0].source
    assert title.startswith("# ")
    badge = r"\[!\[Open in Colab\]\(https://\S+\.svg\)\]\((.+)\)"
    link = re.search(badge, title)
    assert link.group(1) == "https://colab.research.google.com/"
    assert "upload" in title.lower()
    assert "%pip install" in first
    assert "TF_GNC_NOTEBOOK_SIZE" in first


@pytest.mark.parametrize(
    ("uploaded", "build", "device", "source", "keep"),
    [
        # What is there stays, with what it needs.
        (False, "tensorflow-cpu", None, "..", "tensorflow-cpu==2.19.1"),
        (True, "a-tf", "/dev/vfio/0", "tf_gnc.zip", "a-tf==2.19.1"),
        (True, None, None, "tf_gnc.zip[tensorflow]", ""),
        (True, None, "/dev/vfio/0", "tf_gnc.zip[tpu]", ""),
        (False, None, "/dev/accel0", "..[tpu]", ""),
    ],
)
@EVERY_NOTEBOOK
def test_install_cell__without_the_package__installs_what_is_missing(
    name, uploaded, build, device, source, keep, tmp_path, monkeypatch
):
    calls = []

    class Shell:
        def run_line_magic(self, magic, line):
            calls.append((magic, line))

    if uploaded:
        (tmp_path / "tf_gnc.zip").touch()
    monkeypatch.chdir(tmp_path)
    cell = _code(_read(name))[0].source
    code = TransformerManager().transform_cell(cell)
    variables = {"get_ipython": Shell}
    exec(code, variables)
    assert calls == []  # It is importable here.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    builds = {"tensorflow": [build, build]} if build else {}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: builds)
    monkeypatch.setattr(metadata, "version", {build: "2.19.1"}.get)
    exists = os.path.exists
    monkeypatch.setattr(
        os.path,
        "exists",
        lambda path: path == device or ("/dev" not in path and exists(path)),
    )
    exec(code, variables)
    assert calls == [("pip", "install -q {SOURCE} {KEEP}")]
    assert (variables["SOURCE"], variables["KEEP"]) == (source, keep)


@EVERY_NOTEBOOK
def test_notebook__every_import__can_be_resolved(name):
    modules = set()
    for node in (node for tree in _trees(name) for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    assert "tf_gnc" in modules
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    assert missing == []


@EVERY_NOTEBOOK
def test_notebook__names_of_the_package__exist_in_skipped_cells_too(name):
    used = {
        ast.unparse(node)
        for tree in _trees(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and ast.unparse(node).startswith("tf_gnc.")
    }
    assert "tf_gnc.GNCModel" in used
    for dotted in used:
        functools.reduce(getattr, dotted.split(".")[1:], tf_gnc)


@pytest.mark.timeout(TIMEOUT)
def test_run__a_cell_that_fails__is_reported(tmp_path, monkeypatch):
    notebook = _read("quickstart")
    failing = nbformat.v4.new_code_cell("import tf_gnc_that_is_not_there")
    notebook.cells = [notebook.cells[0], failing]
    with pytest.raises(CellExecutionError, match="tf_gnc_that_is_not_there"):
        _run(notebook, tmp_path, monkeypatch)


@pytest.mark.timeout(TIMEOUT)
def test_quickstart__small__trains_checks_and_saves(tmp_path, monkeypatch):
    notebook = _run(_read("quickstart"), tmp_path, monkeypatch)
    assert _figures(notebook) == ["curves"]
    report = _printed(notebook, "doctor").splitlines()
    assert len(report) == 5
    assert all(line.startswith("ok ") for line in report)
    assert "RandomNoise(alpha=0.01" in _printed(notebook, "rules")
    assert _printed(notebook, "save").splitlines() == [
        f"GNCModel {tf_gnc.RandomNoise(alpha=0.01, seed=0)}",
        "Functional (1, 10)",
    ]
    assert "Skipped" in _printed(notebook, "cifar")


@pytest.mark.timeout(TIMEOUT)
def test_multi_device__small__same_weights_on_1_2_and_4_replicas(
    tmp_path, monkeypatch
):
    notebook = _run(_read("multi_device"), tmp_path, monkeypatch)
    runs = _printed(notebook, "runs")
    assert re.findall(r"(\d) replicas with +(\d+) workers", runs) == [
        ("1", "16"),
        ("2", "8"),
        ("4", "4"),
    ]
    distances = re.findall(r"(.+): (\S+)\n", _printed(notebook, "compare"))
    assert [words for words, _ in distances] == [
        "1 and 2 replicas",
        "1 and 4 replicas",
        "16 and 8 workers",
    ]
    two, four, other = (float(number) for _, number in distances)
    # 12 steps, each of which rounds at 6e-8; another run is elsewhere.
    assert max(two, four) < 1e-5
    assert other > 1e-3


@pytest.mark.timeout(TIMEOUT)
def test_what_the_noise_does__small__measures_and_draws(tmp_path, monkeypatch):
    notebook = _run(_read("what_the_noise_does"), tmp_path, monkeypatch)
    assert _figures(notebook) == [
        "spread",
        "similarity",
        "spectrum",
        "sharpness",
        "landscape",
    ]
    kernels = re.findall(
        r"(\w+) +GNC +(\S+) +RNC +(\S+)\n", _printed(notebook, "spectrum")
    )
    assert [layer for layer, _, _ in kernels] == ["first", "second", "logits"]
    # What its text says of the figures: few directions, and steep ones.
    assert all(float(gnc) > 2 * float(rnc) for _, gnc, rnc in kernels)
    means = re.findall(
        r"(\w+) +(\w+) +mean (\S+),", _printed(notebook, "sharpness")
    )
    means = {(when, rule): float(mean) for when, rule, mean in means}
    for when in ("early", "late"):
        clean, rnc, gnc = (means[when, r] for r in ("clean", "RNC", "GNC"))
        assert gnc - clean > 5 * abs(rnc - clean)
    table = _printed(notebook, "smoothness").splitlines()
    assert len(table) == 2 * (1 + 4)
    assert "nan" not in "".join(table)

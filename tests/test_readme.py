"""The README's promises that a machine can check."""

import pathlib
import re

import tf_gnc

README = pathlib.Path(__file__).parents[1] / "README.md"


def _example():
    return re.search(r"```python\n(.*?)```", README.read_text(), re.S).group(1)


def test_readme__keras_example__has_12_lines_and_trains(monkeypatch):
    # Whether it comes in time there is tests/test_threads.py's.
    monkeypatch.setattr(tf_gnc, "set_threads", lambda: None)
    example = _example()
    assert len([line for line in example.splitlines() if line.strip()]) == 12
    namespace = {}
    exec(example, namespace)
    assert namespace["model"].history.history["accuracy"][-1] > 0.9


def test_readme__length__is_what_a_visitor_reads():
    text = README.read_text()
    assert len(text.splitlines()) <= 220
    assert "](docs/figures/cifar10-laptop.png)" in text[:400]  # at the top


def test_readme__set_up_commands__are_those_that_ci_runs():
    readme = README.read_text()
    ci = (README.parent / ".ci" / "run").read_text()
    assert 'pip install ".[tensorflow]" && tf-gnc train\n' in readme
    assert 'pip install ".[test]" && pytest\n' in readme
    assert '".[test]"' in ci
    assert ci.rstrip().endswith("\npytest")

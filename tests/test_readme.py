"""The README's promises that a machine can check."""

import pathlib
import re
import tomllib

import yaml

import tf_gnc
from tf_gnc import _versions

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


def test_citation__the_paper__is_the_readmes():
    citation = yaml.safe_load((README.parent / "CITATION.cff").read_text())
    (paper,) = citation["references"]
    authors = ", ".join(
        f"{author['given-names']} {author['family-names']}"
        for author in paper["authors"]
    )
    section = README.read_text().split("## Licence and citation")[1]
    section = " ".join(section.split())
    assert f"{authors}: *{paper['title']}*" in section
    assert paper["identifiers"][0]["value"] in section
    assert citation["authors"] == [{"name": "tf_gnc developers"}]


def test_versions__of_readme_and_front_page__are_those_that_were_tried():
    project = (README.parent / "pyproject.toml").read_text()
    pythons = re.findall(
        r"Python :: (3\.\d+)",
        " ".join(tomllib.loads(project)["project"]["classifiers"]),
    )
    ranges = {"Python": (pythons[0], pythons[-1])}
    for name, module in (("TensorFlow", "tensorflow"), ("Keras", "keras")):
        ranges[name] = (
            ".".join(map(str, release)) for release in _versions.TRIED[module]
        )
    texts = [README.read_text(), (README.parent / "docs/index.md").read_text()]
    for name, (oldest, newest) in ranges.items():
        for text in texts:
            found = re.findall(rf"{name} ([\d.]+) to ([\d.]+\d)", text)
            assert set(found) == {(oldest, newest)}

"""The documentation's promises that a machine can check."""

import contextlib
import importlib
import importlib.util
import io
import pathlib
import re
import types
from urllib.parse import urlsplit

import markdown.extensions.toc
import numpy as np
import pytest

import tf_gnc
from tf_gnc.cli.main import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *sorted(DOCS.rglob("*.md")),
]

_FENCE = re.compile(
    r"(?:^<!-- not run: *(?P<reason>.*?) *-->\n)?"
    r"^ *```(?P<language>\w*)\n(?P<code>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)


def _each(paths):
    return pytest.mark.parametrize(
        "path", paths, ids=lambda path: str(path.relative_to(ROOT))
    )


def _script(name):
    """A script of docs/, as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The site.


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built pages; building fails at the first warning."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(
        load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    )
    return folder


def test_site__built_strictly__has_every_page_and_no_scripts(site):
    for page in DOCS.rglob("*.md"):
        folder = page.relative_to(DOCS).with_suffix("")
        folder = folder.parent if folder.name == "index" else folder
        assert (site / folder / "index.html").is_file()
    assert (site / "figures" / "fig6.png").is_file()
    assert list(site.rglob("*.py")) == []


def test_site__reference__shows_mathematics_and_examples_as_such(site):
    texts = [page.read_text() for page in (site / "api").rglob("*.html")]
    assert any(r"\[" in text for text in texts)  # a formula
    for text in texts:
        assert ":math:" not in text and ".. math::" not in text
        assert "<blockquote>" not in text  # what Markdown makes of >>>


def test_docstrings__mathematics_and_example__become_markdown():
    text = "As :math:`a\nb`:\n\n.. math:: a = b\n          + c\n\nExample:"
    assert _script("docstrings").to_markdown(text) == (
        "As $a b$:\n\n$$\na = b + c\n$$\n\nExamples:"
    )


def test_site__links_to_files_outside__are_words(site):
    text = (site / "accuracy" / "index.html").read_text()
    assert "<code>results/noise/README.md</code> in the repository" in text
    assert "../results/noise/README.md" not in text


# The reference.


def _references():
    """What the reference's pages show, as pairs of a name and an object."""
    for page in (DOCS / "api").glob("*.md"):
        for path in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
            module, name = path.rsplit(".", 1)
            yield name, getattr(importlib.import_module(module), name)


def _rooms():
    """The public modules, tf_gnc itself the first."""
    rooms = [getattr(tf_gnc, name) for name in tf_gnc.__all__]
    return [tf_gnc, *(r for r in rooms if isinstance(r, types.ModuleType))]


@pytest.mark.parametrize("room", _rooms(), ids=lambda room: room.__name__)
def test_reference__each_public_name__is_shown(room):
    shown = list(_references())
    for name in getattr(room, "__all__", ()):
        value = getattr(room, name)
        if isinstance(value, types.ModuleType):
            assert (DOCS / "api" / f"{name}.md").is_file()
        else:
            found = any(n == name and v is value for n, v in shown)
            assert found, f"{room.__name__}.{name} is in no page of docs/api"


# Links.


def _prose(text):
    """A text without code, whose brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def _anchors(text):
    """The anchors of a text's headings."""
    headings = re.findall(r"^#+ +(.*)", _FENCE.sub("", text), re.MULTILINE)
    slug = markdown.extensions.toc.slugify
    return {slug(heading.replace("`", ""), "-") for heading in headings}


def _broken_links(text, folder):
    """The links of a text in a folder that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(([^)]*)\)", _prose(text)):
        url = urlsplit(link)
        target = (folder / url.path).resolve()
        if url.scheme or url.netloc:
            good = url.scheme == "https" and "." in url.netloc
        elif not url.path:
            good = url.fragment in _anchors(text)
        elif not target.is_file():
            good = False
        elif url.fragment:
            good = url.fragment in _anchors(target.read_text())
        else:
            good = True
        if not good or re.search(r"\s", link):
            broken.append(link)
    return broken


@_each(TEXTS)
def test_links__each_text__lead_to_files_headings_and_good_addresses(path):
    assert _broken_links(path.read_text(), path.parent) == []


@pytest.mark.parametrize(
    ("link", "broken"),
    [
        ("README.md", False),
        ("README.md#when-not-to-use-it", False),
        ("#here-we-are", False),
        ("docs/figures/fig6.png", False),
        ("https://arxiv.org/abs/1906.10822", False),
        ("README.txt", True),
        ("README.md#when-to-use-it", True),
        ("#there", True),
        ("htps://arxiv.org/abs/1906.10822", True),
        ("https://arxiv", True),
        ("https://arxiv.org/abs/ 1906.10822", True),
    ],
)
def test_links__one__is_judged(link, broken):
    text = f"# Here we are\n\n[a\nlink]({link})\n"
    assert _broken_links(text, ROOT) == ([link] if broken else [])


# Code.


def _python(path):
    """The Python of a page: line, code and why it isn't run, or None."""
    text = path.read_text()
    for match in _FENCE.finditer(text):
        if match["language"] == "python":
            line = text.count("\n", 0, match.start("code"))
            yield line, match["code"], match["reason"]


@_each([page for page in PAGES if any(_python(page))])
def test_python__of_each_page__runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # It must come before TensorFlow starts, which other tests have seen to.
    monkeypatch.setattr(tf_gnc, "set_threads", lambda: None)
    namespace = {}
    for line, code, reason in _python(path):
        # Empty lines in front, so that an error names the page's own line.
        code = compile("\n" * line + code, str(path), "exec")
        if reason is None:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, namespace)
        else:
            assert reason, f"{path}:{line}: say why it isn't run"


def test_python__most_of_it__is_run():
    reasons = [reason for page in PAGES for _, _, reason in _python(page)]
    assert reasons.count(None) >= 10
    assert len(reasons) - reasons.count(None) <= 3


# The command line.


def _flags_of(command):
    """The flags that a command has."""
    module = importlib.import_module(f"tf_gnc.cli.{command}")
    values = module.build_flags().values
    names = {"help", *values}
    return names | {f"no{name}" for name in values if values[name].boolean}


def _commands(text):
    """Pairs of a command of tf-gnc and the flags that a text gives it."""
    code = re.sub(r"\\\n\s*", "", text)
    for line in re.findall(r"\btf-gnc +([a-z][^\n`]*)", code):
        words, _, inner = line.partition(" -- ")
        inner = inner if inner.split(" ")[0] in COMMANDS else ""
        for part in filter(None, (words, inner)):
            command, *rest = part.split()
            flags = re.findall(r"--([a-z_]+(?:\.[a-z_]+)?)", " ".join(rest))
            yield command, flags


def _unknown_flags(text):
    """What a text has of commands and flags that don't exist."""
    for command, flags in _commands(text):
        if command not in COMMANDS:
            yield command
            continue
        known = _flags_of(command)
        yield from (f"{command} --{f}" for f in flags if f not in known)
    # A flag alone, as in `--resume`, is one of some command's.
    everywhere = set().union(*map(_flags_of, COMMANDS))
    alone = re.findall(
        r"`--([a-z_]+(?:\.[a-z_]+)?)", re.sub(r"```.*?```", "", text)
    )
    yield from (f"--{name}" for name in alone if name not in everywhere)


@_each(TEXTS)
def test_flags__each_text__exist(path):
    assert list(_unknown_flags(path.read_text())) == []


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("tf-gnc train --seed=1 \\\n  --noerasing --help", []),
        ("`tf-gnc launch --processes=2 -- my.py --any=1`", []),
        ("tf-gnc train \\\n  --sede=1", ["train --sede"]),
        ("tf-gnc launch --seed=1 -- train", ["launch --seed"]),
        ("tf-gnc launch -- train --processes=1", ["train --processes"]),
        ("tf-gnc tran --seed=1", ["tran"]),
        ("the flag `--sede=1`", ["--sede"]),
    ],
)
def test_flags__a_line__is_judged(text, unknown):
    assert list(_unknown_flags(text)) == unknown


# Numbers.


def _section(text, heading):
    """What stands under a heading, up to the next of its kind or above."""
    level = heading.split()[0]
    rest = text.split(f"\n{heading}\n")[1]
    return re.split(rf"^#{{1,{len(level)}}} ", rest, flags=re.MULTILINE)[0]


@pytest.mark.parametrize(
    ("heading", "page"),
    [("## Cost", "speed"), ("### Results on CIFAR-10", "accuracy")],
)
def test_method_card__our_numbers__are_those_of_their_page(heading, page):
    section = _section((DOCS / "method_card.md").read_text(), heading)
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) >= 3
    text = (DOCS / f"{page}.md").read_text()
    missing = set(rows) - set(text.splitlines())
    assert missing == set(), f"{page}.md has other numbers by now: copy them"


# The figures.


@pytest.fixture(scope="module")
def figure():
    """docs/draw_schedules.py, as a module."""
    return _script("draw_schedules")


def _at(curve, *epochs):
    return np.interp(epochs, *curve)


def test_figure__cifar__has_the_numbers_of_table_4(figure):
    for batch_size, rate in ((4096, 3.2), (8192, 6.4)):
        rates = _at(figure.cifar(batch_size), 0, 10, 79.5, 80, 119.5, 120)
        expected = [0.025, rate, rate, rate / 10, rate / 10, rate / 100]
        np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_figure__imagenet__has_the_numbers_of_table_4(figure):
    for batch_size, rate in ((32_768, 23.0), (131_072, 42.0)):
        rates = _at(figure.imagenet(batch_size), 0, 5, 79.9, 80.1, 89)
        np.testing.assert_allclose(rates[:2], [1.0, rate], rtol=1e-6)
        assert 4 < rates[2] / rates[3] < 6  # divided by 5, and falling
        assert 0 < rates[4] < rates[3]


def test_results_figure__numbers__are_those_of_the_accuracy_page():
    table = _section(
        (DOCS / "accuracy.md").read_text(), "## CIFAR-10 on a laptop"
    )
    for seed in range(3):
        row = re.search(rf"^\| seed {seed} \|(.*)\|$", table, re.MULTILINE)[1]
        drawn = _script("draw_results").accuracies().values()
        assert [f"{values[seed]:.2f}" for values in drawn] == [
            cell.strip() for cell in row.split("|")
        ]


@pytest.mark.parametrize(
    ("script", "name"),
    [("draw_schedules", "fig6.png"), ("draw_results", "cifar10-laptop.png")],
)
def test_figure__drawn__is_a_small_png(script, name, tmp_path):
    _script(script).draw(tmp_path / "new" / name)
    for path in (tmp_path / "new" / name, DOCS / "figures" / name):
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) < 100_000

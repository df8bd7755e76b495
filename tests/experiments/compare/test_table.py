import csv
import html.parser
import io
import xml.etree.ElementTree

import pytest

from tf_gnc.experiments.compare.page import to_html
from tf_gnc.experiments.compare.plan import make_plan
from tf_gnc.experiments.compare.statistics import make_columns
from tf_gnc.experiments.compare.table import make_table, to_csv
from tf_gnc.experiments.run.task import Result

MACHINE = {"versions": {"tf_gnc": "1"}, "machine": "m", "num_cores": 1}


def _result(accuracy, environment=MACHINE):
    row = {"epoch": 1, "loss": 0.5, "val_accuracy": accuracy, "seconds": 2.0}
    summary = {
        "val_accuracy": accuracy,
        "best_val_accuracy": accuracy + 0.01,
        "train_loss": 0.5,
    }
    return Result([row], summary, None, environment)


def _diverged(epoch):
    rows = [{"epoch": 1, "loss": None, "val_accuracy": None, "seconds": 1.0}]
    return Result(rows, None, epoch, MACHINE)


def _all(methods, accuracies, baseline=None):
    """Returns the plan, its columns and the table of made-up accuracies."""
    seeds = list(range(len(accuracies[0])))
    plan = make_plan(methods, seeds, baseline, epochs=2)
    results = {
        (method, seed): value if isinstance(value, Result) else _result(value)
        for method, values in zip(methods, accuracies, strict=True)
        for seed, value in zip(seeds, values, strict=True)
    }
    columns = make_columns(plan, results)
    return plan, columns, make_table(plan, columns)


def _rows(table):
    return {name: cells for name, *cells in table.rows}


def test_table__three_seeds__values_mean_difference_and_interval():
    _, _, table = _all(["dpsgd", "gnc"], [[0.2, 0.3, 0.4], [0.3, 0.5, 0.7]])
    rows = _rows(table)
    assert table.header == ["", "dpsgd", "gnc"]
    assert rows["seed 1"] == ["30.00", "50.00"]
    assert rows["mean ± std"] == ["30.00 ± 10.00", "50.00 ± 20.00"]
    assert rows["runs (n)"] == ["3", "3"]
    assert rows["best epoch"] == ["31.00 ± 10.00", "51.00 ± 20.00"]
    # Differences 10, 20, 30: 20 ± 4.3027 * 10 / sqrt(3).
    assert rows["difference"] == ["baseline", "+20.00"]
    assert rows["95 % CI"] == ["-", "-4.84 to +44.84"]
    assert rows["p (paired t)"] == ["-", "0.074"]
    assert "p (Holm)" not in rows
    assert rows["seconds"] == ["2.0 ± 0.0", "2.0 ± 0.0"]
    notes = " ".join(table.notes)
    assert "paired t-test (two-sided)." in notes
    assert "3 seeds are few" in notes
    assert "diverged" not in notes and "INCOMPLETE" not in notes


def test_table__many_seeds_and_methods__are_not_few_and_corrected():
    accuracies = [[0.1, 0.2, 0.3, 0.5, 0.4], [0.2] * 5, [0.3] * 5]
    _, _, table = _all(["dpsgd", "gnc", "rnc"], accuracies)
    rows = _rows(table)
    # By scipy 0.2302 and 1.
    assert rows["p (paired t)"] == ["-", "0.230", "1.000"]
    assert rows["p (Holm)"] == ["-", "0.460", "1.000"]
    notes = " ".join(table.notes)
    assert "few" not in notes
    assert "Holm: corrected for 2 tests" in notes


def test_table__a_run_diverged__is_a_result_and_left_out_of_the_means():
    accuracies = [[0.5, 0.6, 0.7], [0.6, _diverged(4), 0.9]]
    plan, columns, table = _all(["dpsgd", "gnc"], accuracies)
    rows = _rows(table)
    assert rows["seed 1"] == ["60.00", "diverged (epoch 4)"]
    assert rows["runs (n)"] == ["3", "2"]
    assert rows["mean ± std"][1] == "75.00 ± 21.21"
    assert rows["difference"][1] == "+15.00"  # of 10 and 20
    notes = " ".join(table.notes)
    assert "1 of 6 runs diverged" in notes
    assert "INCOMPLETE" not in notes
    (_, line) = csv.DictReader(io.StringIO(to_csv(plan, columns)))
    assert line["seed_1"] == "diverged (epoch 4)"
    assert (line["accuracy_n"], line["difference_count"]) == ("2", "2")
    assert float(line["difference_mean"]) == pytest.approx(0.15)


def test_table__all_runs_of_a_method_diverged__has_dashes():
    accuracies = [[0.5, 0.6], [_diverged(1), _diverged(2)]]
    rows = _rows(_all(["dpsgd", "gnc"], accuracies)[2])
    for name in ("mean ± std", "difference", "p (paired t)", "seconds"):
        assert rows[name][1] == "-"


def test_table__a_run_missing__says_that_it_is_incomplete():
    _, _, table = _all(["dpsgd", "gnc"], [[0.5, 0.6], [Result(), 0.7]])
    assert _rows(table)["seed 0"] == ["50.00", "missing"]
    assert any("INCOMPLETE: 1 of 4" in note for note in table.notes)


def test_table__one_seed__no_interval_and_says_so():
    _, _, table = _all(["dpsgd", "gnc"], [[0.5], [0.75]])
    rows = _rows(table)
    assert rows["mean ± std"] == ["50.00", "75.00"]
    assert rows["difference"] == ["baseline", "+25.00"]
    assert rows["95 % CI"] == rows["p (paired t)"] == ["-", "-"]
    assert any("One seed" in note for note in table.notes)


def test_table__ties__no_interval_and_says_why():
    _, _, table = _all(["dpsgd", "gnc"], [[0.5, 0.6], [0.5, 0.6]])
    assert _rows(table)["difference"] == ["baseline", "+0.00"]
    assert _rows(table)["p (paired t)"] == ["-", "-"]
    assert any("No interval for gnc" in note for note in table.notes)


def test_table__one_method__has_nothing_to_compare():
    _, _, table = _all(["gnc"], [[0.5, 0.6]])
    assert "difference" not in _rows(table)
    assert not any("t-test" in note for note in table.notes)


def test_table__two_machines__says_so():
    other = _result(0.5, {**MACHINE, "machine": "other"})
    cores = _result(0.5, {**MACHINE, "num_cores": 2})
    assert any(
        "different machines" in note
        for note in _all(["gnc"], [[0.5, other]])[2].notes
    )
    assert not any(
        "different machines" in note
        for note in _all(["gnc"], [[0.5, cores]])[2].notes
    )


def test_to_text__four_methods__columns_line_up_within_80():
    accuracies = [
        [0.99, 0.98, 1.0],
        [0.97, 0.97, 0.97],
        [0.98, 0.99, 0.98],
        [0.99, 1.0, 0.99],
    ]
    methods = ["dpsgd", "rnc", "gnc", "gnc_to_rnc"]
    text = _all(methods, accuracies)[2].to_text()
    assert max(map(len, text.splitlines())) <= 80
    _, _, header, _, seed, *_ = text.splitlines()
    values = ("99.00", "97.00", "98.00", "99.00")
    for method, value in zip(methods, values, strict=True):
        end = header.index(f" {method}") + len(method) + 1
        assert seed[:end].endswith(f" {value}")


def test_to_markdown__any_table__has_as_many_cells_in_each_line():
    text = _all(["dpsgd", "gnc"], [[0.5, 0.6], [0.7, 0.8]])[2].to_markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {4}
    assert "| seed 0 | 50.00 | 70.00 |" in lines


class _Page(html.parser.HTMLParser):
    """Collects tags, addresses and text; checks that tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.words, self._open = [], [], [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [
            value for name, value in attrs if name.endswith(("src", "href"))
        ]
        if tag not in ("meta",):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [
            value for name, value in attrs if name.endswith(("src", "href"))
        ]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


def test_to_html__any_table__is_self_contained_and_complete():
    plan, columns, table = _all(
        ["dpsgd", "gnc"], [[0.5, 0.6], [0.7, _diverged(3)]]
    )
    text = to_html(plan, columns, table, "tf-gnc compare --x='<a&b>'")
    page = _Page(text)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    # Within the page itself; what it names besides are XML's name spaces.
    assert all(address.startswith("#") for address in page.addresses)
    assert "url(http" not in text and "@import" not in text
    for word in (
        "tf-gnc compare --x='<a&b>'",
        "gnc: test accuracy",
        "dpsgd: training loss",
        "seed 1, diverged in epoch 3",
        "diverged (epoch 3)",
        "learning_rate",
        "tf_gnc",
        *table.notes,
    ):
        assert word in page.words, word
    # No colour of the drawing is left to the drawing.
    drawing = text[text.index("<svg") : text.index("</svg>") + 6]
    xml.etree.ElementTree.fromstring(drawing)
    assert "var(--ink)" in drawing and "var(--l1)" in drawing
    assert "#0102" not in drawing
    assert "prefers-color-scheme: dark" in text


def test_to_html__twice__is_the_same_text():
    plan, columns, table = _all(["gnc"], [[0.5, 0.6]])
    first, second = (to_html(plan, columns, table, "c") for _ in range(2))
    assert first == second

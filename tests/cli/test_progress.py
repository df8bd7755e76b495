import io

import keras
import numpy as np

from tf_gnc.cli.progress import Console, show_progress
from tf_gnc.cli.train import print_summary
from tf_gnc.experiments import Summary

SUMMARY = Summary(
    dataset="digits",
    model="resnet8",
    method="gnc",
    seed=0,
    epochs=2,
    batch_size=8,
    num_workers=2,
    num_replicas=1,
    val_accuracy=0.5,
    best_val_accuracy=0.75,
    train_loss=None,
    seconds=2.0,
    examples_per_second=1234.0,
    peak_memory_bytes=2**20,
)


def _fit(console):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse", run_eagerly=True)
    with show_progress(console) as callback:
        model.fit(
            np.ones((4, 2)), np.ones((4, 1)), batch_size=2, epochs=2,
            verbose=0, callbacks=[callback],
        )  # fmt: skip


def test_show_progress__no_terminal__prints_a_line_per_epoch():
    out = io.StringIO()
    _fit(Console(file=out, force_terminal=False))
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("loss " in line and "\x1b" not in line for line in lines)


def test_show_progress__terminal__one_bar_ends_full_and_cursor_returns():
    out = io.StringIO()
    _fit(Console(file=out, force_terminal=True, width=100))
    text = out.getvalue()
    last_drawn = text.splitlines()[-2]  # Then only the cursor comes back.
    assert "epoch 2/2" in last_drawn
    assert "loss" in last_drawn
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_show_progress__training_fails__cursor_returns():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    try:
        with show_progress(console):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert out.getvalue().count("\x1b[?25h") == 1


def test_print_summary__narrow_window__keeps_the_path_in_one_piece():
    out = io.StringIO()
    path = "/a/rather/long/path/" + 9 * "word/"
    print_summary(Console(file=out, width=40), SUMMARY, path, ["model.keras"])
    text = out.getvalue()
    assert f"in {path}\n" in text
    assert "50.00%" in text
    assert "75.00%" in text
    assert "nan" in text

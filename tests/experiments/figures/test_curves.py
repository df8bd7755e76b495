import struct

import pytest

from tf_gnc.experiments.figures.curves import draw_curves


def _row(epoch, value, rule):
    names = ("loss", "val_loss", "accuracy", "val_accuracy")
    return {"epoch": epoch, "rule": rule, **dict.fromkeys(names, value)}


@pytest.mark.parametrize(
    "rows",
    [
        [_row(1, 0.5, None)],
        [_row(1, None, None)],
        [_row(1, 0.5, "GradientNoise"), _row(2, None, "RandomNoise")],
        [_row(epoch, 1 / epoch**3, "GradientNoise") for epoch in range(1, 9)],
    ],
    ids=["one epoch", "nothing finite", "a gap and a switch", "wide range"],
)
def test_draw_curves__any_rows__gives_a_png_of_readable_size(rows, tmp_path):
    draw_curves(rows, "a title").savefig(tmp_path / "curves.png")
    head = (tmp_path / "curves.png").read_bytes()[:24]
    # PNG signature, then the header chunk with width and height.
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    assert width >= 1000
    assert height >= 400

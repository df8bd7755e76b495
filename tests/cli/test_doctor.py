import pytest

from tf_gnc import doctor
from tf_gnc.cli import doctor as command
from tf_gnc.cli.main import main

TINY = ["--workers=4", "--batch_size=16"]


def _one_error(capsys):
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("tf-gnc doctor: error: ")
    return err


@pytest.mark.parametrize(
    ("method", "num_rules"),
    [("dpsgd", 1), ("rnc", 1), ("gnc", 1), ("gnc_to_rnc", 2)],
)
def test_doctor__each_method__is_well_and_says_what_was_seen(
    method, num_rules, capsys
):
    assert main(["doctor", f"--method={method}", *TINY]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == ""
    assert lines[0].startswith("tf_gnc ")
    assert f"digits, resnet8 with 75,002 weights, {method}" in captured.out
    assert "replicas: 1, processes: 1" in captured.out
    assert "workers: 4 x 4 examples, per replica: 4" in captured.out
    assert captured.out.count("ok   weights: ") == num_rules
    assert ("4 workers x 75,002 weights in float32" in captured.out) == (
        method.startswith("gnc")
    )
    assert ("off, as asked" in captured.out) == (method == "dpsgd")
    assert lines[-1] == "All is well."


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--alpha=0"], "FAIL noise: off, since alpha=0."),
        (["--learning_rate=0"], "FAIL noise: off, since the learning rate"),
        (["--workers=1"], "FAIL noise: off, since with num_workers=1"),
    ],
)
@pytest.mark.filterwarnings("ignore:GradientNoise does nothing")
def test_doctor__noise_silently_off__exit_1_and_the_reason(
    flags, reason, capsys
):
    assert main(["doctor", *TINY, *flags]) == 1
    out = capsys.readouterr().out
    assert reason in out
    assert out.endswith("2 of 6 checks failed.\n")


def test_doctor__too_little_memory__exit_1_without_a_step(monkeypatch, capsys):
    short = doctor.Check("memory", False, "too little.")
    monkeypatch.setattr(doctor, "check_memory", lambda model: short)
    monkeypatch.setattr(doctor, "check", None)  # must not be called
    assert main(["doctor", *TINY]) == 1
    out = capsys.readouterr().out
    assert out.endswith("FAIL memory: too little.\n\n1 of 1 checks failed.\n")


def test_doctor__not_the_chief__prints_nothing(monkeypatch, capsys):
    monkeypatch.setattr(command, "is_chief", lambda strategy: False)
    assert main(["doctor", "--method=dpsgd", *TINY]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--strategy=mirrored"], ["'mirrored' needs a GPU"]),
        (["--strategy=ring"], ["--strategy=ring", "multi_worker"]),
        (["--workers=3", "--batch_size=64"], ["batch_size=64", "63"]),
        (["--method=dpsgd", "--alpha=1"], ["--alpha", "gnc|gnc_to_rnc"]),
        (["--method=gnc", "--alpha_rnc=1"], ["--alpha_rnc", "rnc|gnc_to_rnc"]),
        (["--epochs=3"], ["epochs"]),
        (["digits"], ["only flags", "'digits'"]),
    ],
)
def test_doctor__bad_command__one_line_and_exit_2(flags, words, capsys):
    assert main(["doctor", *flags]) == 2
    err = _one_error(capsys)
    assert all(word in err for word in words), err


def test_doctor__help__fits_the_screen(capsys):
    assert main(["doctor", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--strategy=<auto|none|one_device|mirrored|multi_worker|tpu>" in out
    assert all(len(line) <= 80 for line in out.splitlines())

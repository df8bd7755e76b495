import os
import re
import subprocess
import sys

import pytest

import tf_gnc
from tf_gnc.cli.main import COMMANDS, main
from tf_gnc.cli.tensorflow_start import quiet_start


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_main__help__lists_every_command(arguments, capsys):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", out, re.M)


def test_main__version__prints_it(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tf-gnc {tf_gnc.__version__}\n"


def test_main__unknown_command__one_line_with_the_nearest(capsys):
    assert main(["tran"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "tf-gnc: error: no command 'tran'; the commands are: "
        f"{', '.join(COMMANDS)}. "
        "Did you mean 'train'?\n"
    )


def test_quiet_start__all_goes_well__holds_back_what_c_code_writes(capfd):
    with quiet_start():
        os.write(2, b"chatter\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_quiet_start__something_fails__shows_what_was_held_back(capfd):
    with pytest.raises(ZeroDivisionError), quiet_start():
        os.write(2, b"the reason\n")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "the reason\n"


def test_quiet_start__verbose__holds_nothing_back(capfd):
    with quiet_start(verbose=True):
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == "chatter\n"


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help__nobody_reads_it__exit_141_and_nothing_said(
    name, monkeypatch, capsys
):
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        code = main([name, "--help"] if name else ["--help"])
    assert code == 141
    assert capsys.readouterr().err == ""


def test_installed_command__nobody_reads_the_help__python_does_not_complain():
    ours, theirs = os.pipe()
    os.close(ours)
    result = subprocess.run(
        [sys.executable, "-m", "tf_gnc.cli.main", "--help"],
        stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_flag__any_command__one_line_with_a_hint_and_2(name, capsys):
    end = ["--", "true"] if name == "launch" else []
    assert main([name, "--no-such-flag=1", *end]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"tf-gnc {name}: error: ")
    assert "no-such-flag" in line
    assert f"`tf-gnc {name} --help` lists the flags." in line

import os
import re

import pytest

import tf_gnc
from tf_gnc.cli.main import COMMANDS, main
from tf_gnc.cli.tensorflow_start import quiet_start


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_main__help__lists_every_command(arguments, capsys):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert re.search(
            rf"^  {name} +{re.escape(command.summary)}$", out, re.M
        )


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
    with quiet_start(["--verbose"]):
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == "chatter\n"

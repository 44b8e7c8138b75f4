"""How scripts end: bad input and full disks in one line, faults of the program with a traceback."""

import errno
from dataclasses import dataclass

import pytest
from safetensors import SafetensorError

from efficientbert.train.script import InputError, run_script


@dataclass
class Arguments:
    """Does nothing."""

    size: int = 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("size: must be\nabove 0"), "size: must be above 0"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.json"),
            "disk full: [Errno 28] No space left on device: ",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk full: [Errno 122] Disk quota exceeded; make room"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "disk full: I/O error: No space left"),
    ],
)
def test_bad_input_and_full_disks_end_in_one_line(error, line, capsys):
    def main(args):
        raise error

    with pytest.raises(SystemExit) as ended:
        run_script(main, Arguments, "test", [])
    assert ended.value.code == 2
    written = capsys.readouterr().err
    assert written.startswith(f"efficientbert test: error: {line}") and written.count("\n") == 1


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), SafetensorError("header"), KeyError("x")]
)
def test_other_errors_are_not_hidden(error):
    def main(args):
        raise error

    with pytest.raises(type(error)):
        run_script(main, Arguments, "test", [])

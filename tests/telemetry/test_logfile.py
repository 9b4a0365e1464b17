"""The file of the access log: opened for appending, reopened in its place, refused with a reason."""

import os
import threading

import pytest

from obsserve.errors import StartupError
from obsserve.telemetry.logfile import LogFile, ends_within_a_line, take_back


class Reopened:
    def __init__(self):
        self._done = threading.Event()
        self.error = None

    def __call__(self, error):
        self.error = error
        self._done.set()

    def wait(self):
        assert self._done.wait(10)
        return self.error


@pytest.fixture
def path(tmp_path):
    return tmp_path / "access.log"


def test_it_appends_and_is_not_for_everybody(path):
    path.write_bytes(b"before\n")
    file = LogFile(str(path))
    os.write(file.fd, b"after\n")
    file.close()
    assert path.read_bytes() == b"before\nafter\n"
    path.unlink()
    LogFile(str(path)).close()
    assert path.stat().st_mode & 0o007 == 0


def test_a_path_that_cannot_be_written_is_told_with_its_reason(path):
    with pytest.raises(StartupError, match=r"No such file or directory. Change --access-log-file") as caught:
        LogFile(str(path / "nowhere"))
    assert "\n" not in str(caught.value)
    with pytest.raises(StartupError, match="Is a directory"):
        LogFile(str(path.parent))


def test_reopening_keeps_the_descriptors_number(path):
    file = LogFile(str(path))
    number = file.fd
    os.write(number, b"old\n")
    path.rename(f"{path}.1")
    done = Reopened()
    file.reopen(done)
    assert done.wait() is None
    os.write(number, b"new\n")
    assert not os.get_inheritable(number)
    file.close()
    assert path.read_bytes() == b"new\n"


def test_what_cannot_be_reopened_stays(path):
    folder = path.parent / "folder"
    folder.mkdir()
    file = LogFile(str(folder / "log"))
    moved = folder.rename(path.parent / "moved")
    done = Reopened()
    file.reopen(done)
    assert isinstance(done.wait(), FileNotFoundError)
    os.write(file.fd, b"line\n")
    file.close()
    assert (moved / "log").read_bytes() == b"line\n"


def test_a_relative_path_stays_where_it_was(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    file = LogFile("access.log")
    monkeypatch.chdir("/")
    done = Reopened()
    file.reopen(done)
    assert done.wait() is None
    file.close()


@pytest.mark.parametrize(("content", "within"), [(b"", False), (b"whole\n", False), (b"whole\nhalf", True)])
def test_the_end_of_a_file(path, content, within):
    path.write_bytes(content)
    file = LogFile(str(path))
    assert ends_within_a_line(file.fd) is within
    file.close()
    reader, writer = os.pipe()
    assert ends_within_a_line(writer), "nobody can know of a pipe"
    os.close(reader)
    os.close(writer)


def test_only_what_was_written_last_is_taken_back(path):
    ours, theirs = LogFile(str(path)), LogFile(str(path))
    os.write(ours.fd, b"whole\nhalf")
    assert take_back(ours.fd, 4)
    assert path.read_bytes() == b"whole\n"
    os.write(ours.fd, b"half")
    os.write(theirs.fd, b"other\n")
    assert not take_back(ours.fd, 4)
    assert path.read_bytes() == b"whole\nhalfother\n"
    ours.close()
    theirs.close()
    assert not take_back(ours.fd, 1)

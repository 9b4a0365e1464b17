"""Which files count for `--reload`."""

from __future__ import annotations

import pytest

from obsserve.server.reload import SourceFiles


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("src/shop", "templates", "build", "src/.cache"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def counted(folder, files, *names):
    return [name for name in names if str(folder / name) in files]


def test_the_current_directory_and_python_files_by_default(folder):
    files = SourceFiles((), (), ())
    assert files.directories == [folder]
    names = (
        "main.py",
        "src/shop/cart.py",
        "page.html",
        ".hidden.py",
        "src/.cache/x.py",
        "a.pyc",
        "~x.py",
        ".x.swp",
    )
    assert counted(folder, files, *names) == ["main.py", "src/shop/cart.py"]
    assert "/elsewhere/main.py" not in files


def test_more_can_be_included(folder):
    files = SourceFiles((), ("*.html", "src/*.yaml", ".env"), ())
    names = ("page.html", "src/shop/a.yaml", "a.yaml", ".env", ".other", "main.py")
    assert counted(folder, files, *names) == ["page.html", "src/shop/a.yaml", ".env", "main.py"]


def test_files_and_directories_can_be_excluded(folder):
    files = SourceFiles((), (), ("build", "*_test.py", "src/shop/*"))
    names = ("main.py", "build/x.py", "cart_test.py", "src/shop/cart.py", "src/other.py")
    assert counted(folder, files, *names) == ["main.py", "src/other.py"]


def test_the_default_pattern_can_be_taken_away(folder):
    files = SourceFiles((), ("*.html",), ("*.py",))
    assert counted(folder, files, "main.py", "page.html") == ["page.html"]


def test_a_directory_is_watched_once_and_one_that_is_excluded_not_at_all(folder):
    assert SourceFiles(("src", "src/shop", "templates"), (), ("templates",)).directories == [folder / "src"]


def test_an_included_directory_is_watched_whole(folder):
    files = SourceFiles(("src",), ("templates",), ())
    assert files.directories == [folder / "src", folder / "templates"]
    assert counted(folder, files, "templates/page.txt", "templates/.x.swp", "src/page.txt") == [
        "templates/page.txt"
    ]

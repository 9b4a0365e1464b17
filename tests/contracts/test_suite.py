"""The test suite itself."""

import re
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent


def test_no_two_files_have_the_same_name():
    """pytest would import one of them only, and refuse to go on when both are collected."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_what_the_documentation_says_about_tests_is_there():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    named = {
        (page.name, path)
        for page in pages
        for path in re.findall(r"(?<!\w)tests/[\w/.-]*\w", page.read_text("utf-8"))
    }
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name[1]).exists()] == []

import sys

import pytest

from obsserve.importer import ImportFromStringError, application_traceback, import_from_string


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Write modules that can be imported during the test, and only then."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(name, source):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_an_attribute_of_a_module():
    assert import_from_string("os.path:join") is sys.modules["os.path"].join


def test_a_dotted_attribute():
    assert import_from_string("collections:OrderedDict.fromkeys")


def test_anything_but_a_string_is_returned_as_it_is():
    application = object()
    assert import_from_string(application) is application


@pytest.mark.parametrize("given", ["", "module", ":attribute", "module:"])
def test_the_format(given):
    with pytest.raises(ImportFromStringError) as caught:
        import_from_string(given)
    assert str(caught.value) == f'Import string "{given}" must be in format "<module>:<attribute>".'


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.module", "os.no_such_module"])
def test_a_module_that_is_not_there(module):
    with pytest.raises(ImportFromStringError) as caught:
        import_from_string(f"{module}:app")
    assert str(caught.value) == f'Could not import module "{module}".'


@pytest.mark.parametrize("attribute", ["no_such_attribute", "path.no_such_attribute"])
def test_an_attribute_that_is_not_there(attribute):
    with pytest.raises(ImportFromStringError) as caught:
        import_from_string(f"os:{attribute}")
    assert str(caught.value) == f'Attribute "{attribute}" not found in module "os".'


def test_a_missing_dependency_of_the_module_propagates(modules):
    modules("needs_more", "import no_such_dependency")
    with pytest.raises(ModuleNotFoundError) as caught:
        import_from_string("needs_more:app")
    assert caught.value.name == "no_such_dependency"


def test_what_the_module_raises_propagates(modules):
    modules("broken", "raise RuntimeError('no')")
    with pytest.raises(RuntimeError, match="no"):
        import_from_string("broken:app")


def test_the_traceback_begins_in_the_application(modules):
    modules("broken", "def start():\n    raise RuntimeError('no')\n\nstart()\n")
    with pytest.raises(RuntimeError) as caught:
        import_from_string("broken:app")
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # without this test's own frame
    text = application_traceback(caught.value)
    files = [line for line in text.splitlines() if line.lstrip().startswith("File ")]
    assert len(files) == 2
    assert all("broken.py" in line for line in files)
    assert text.endswith("RuntimeError: no\n")

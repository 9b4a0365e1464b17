import configparser
import io
import json
import logging
import sys

import pytest

from obsserve.errors import ConfigError
from obsserve.logconfig import BUILT_IN, LOGGING_CONFIG, apply_log_config, log_config

INI = """\
[loggers]
keys=root,access
[handlers]
keys=out
[formatters]
keys=plain
[logger_root]
handlers=
[logger_access]
qualname=obsserve.access
level=WARNING
handlers=out
propagate=0
[handler_out]
class=StreamHandler
formatter=plain
args=(sys.stdout,)
[formatter_plain]
format=ini %(message)s
"""
DICT = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "dict %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {"obsserve.access": {"handlers": ["out"], "level": "WARNING", "propagate": False}},
}
YAML = """\
version: 1
disable_existing_loggers: false
formatters: {plain: {format: yaml %(message)s}}
handlers: {out: {class: logging.StreamHandler, formatter: plain}}
loggers: {obsserve.access: {handlers: [out], level: WARNING, propagate: false}}
"""


@pytest.fixture(autouse=True)
def restored():
    """Give back what the process logs through."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    for name in ("obsserve", "obsserve.error", "obsserve.access", "obsserve.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def apply(config, **options):
    apply_log_config(config, **{"log_level": None, "access_log": True, "use_colors": None, **options})
    return logging.getLogger("obsserve.access")


def format_of(logger):
    return logger.handlers[0].formatter._fmt.split()[0]


class TestWays:
    def test_a_dictionary(self):
        logger = apply(log_config(DICT))
        assert (format_of(logger), logger.level) == ("dict", logging.WARNING)

    @pytest.mark.parametrize(
        ("name", "text", "form"),
        [("log.ini", INI, "ini"), ("log.conf", INI, "ini"), ("log.json", json.dumps(DICT), "dict"),
         ("log.yaml", YAML, "yaml"), ("log.yml", YAML, "yaml")],
    )  # fmt: skip
    def test_a_file(self, tmp_path, name, text, form):
        (tmp_path / name).write_text(text)
        logger = apply(log_config(tmp_path / name))
        assert (format_of(logger), logger.level) == (form, logging.WARNING)

    def test_a_config_parser(self):
        parser = configparser.RawConfigParser()
        parser.read_string(INI)
        assert format_of(apply(log_config(parser))) == "ini"

    def test_an_open_file(self):
        assert format_of(apply(log_config(io.StringIO(INI)))) == "ini"

    def test_none_leaves_logging_as_it_is(self):
        logger = logging.getLogger("obsserve.access")
        logger.setLevel(logging.ERROR)
        assert apply(None) is logger
        assert (logger.handlers, logger.level, logger.propagate) == ([], logging.ERROR, True)

    def test_a_file_does_not_silence_other_loggers(self, tmp_path):
        (tmp_path / "log.ini").write_text(INI)
        logging.getLogger("shop")
        apply(log_config(tmp_path / "log.ini"))
        assert not logging.getLogger("shop").disabled


class TestTheDictionary:
    def test_it_is_the_built_in_logging_until_it_is_changed(self, monkeypatch):
        assert log_config(LOGGING_CONFIG) == BUILT_IN
        assert log_config(json.loads(json.dumps(LOGGING_CONFIG))) == BUILT_IN
        monkeypatch.setitem(LOGGING_CONFIG["formatters"]["default"], "fmt", "%(asctime)s %(message)s")
        assert log_config(LOGGING_CONFIG) is LOGGING_CONFIG

    def test_it_is_valid(self, capsys):
        logger = apply(LOGGING_CONFIG)
        logger.info('%s - "%s %s HTTP/%s" %d', "192.0.2.1:5", "GET", "/", "1.1", 200)
        assert capsys.readouterr().out == 'INFO:     192.0.2.1:5 - "GET / HTTP/1.1" 200 OK\n'

    @pytest.mark.parametrize("wanted", [True, False])
    def test_colours(self, wanted):
        logger = apply(LOGGING_CONFIG, use_colors=wanted)
        assert logger.handlers[0].formatter.use_colors is wanted
        assert LOGGING_CONFIG["formatters"]["default"]["use_colors"] is None, "it is the user's"

    def test_colours_are_not_given_to_formatters_of_others(self):
        config = {
            **DICT,
            "formatters": {"default": {"format": "x%(message)s"}, "plain": {"format": "y %(message)s"}},
        }
        assert format_of(apply(config, use_colors=True)) == "y"


class TestOtherOptions:
    def test_a_level(self):
        assert apply(DICT, log_level=logging.ERROR).level == logging.ERROR
        assert logging.getLogger("obsserve.error").level == logging.ERROR
        assert logging.getLogger("obsserve.asgi").level == logging.ERROR

    def test_no_access_log(self):
        logger = apply(DICT, access_log=False)
        assert (logger.handlers, logger.propagate) == ([], False)


class TestMistakes:
    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("missing.ini", None, "No such file or directory"),
            ("missing.json", None, "No such file or directory"),
            ("broken.json", "{", "Expecting property name"),
            ("list.yaml", "- 1", "it holds a list instead of a dictionary"),
            ("broken.ini", "[loggers]\n", "there is no 'formatters'"),
            ("version.json", '{"version": 2}', "Unsupported version"),
            (
                "handler.json",
                '{"version": 1, "handlers": {"x": {"class": "no.such.Handler"}}}',
                "No module named 'no'",
            ),
        ],
    )
    def test_one_line_that_names_the_file(self, tmp_path, name, text, said):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError) as caught:
            apply(log_config(tmp_path / name))
        (problem,) = caught.value.problems
        assert problem.option == "log_config"
        assert said in problem.what
        assert name in problem.what
        assert "\n" not in str(caught.value)

    def test_yaml_without_its_library(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "yaml", None)
        (tmp_path / "log.yaml").write_text(YAML)
        with pytest.raises(ConfigError, match=r"pip install 'obsserve\[config\]'"):
            apply(log_config(tmp_path / "log.yaml"))

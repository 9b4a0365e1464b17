"""What feeds the export of log lines, and what it must not change."""

import logging
import threading

import pytest

from obsserve.errors import StartupError
from obsserve.telemetry import catalogue, logexport
from obsserve.telemetry.cells import Cells
from obsserve.telemetry.logexport import (
    ExportSink,
    LogExport,
    LogExportConfiguration,
    log_export_configuration,
)
from obsserve.telemetry.spanfigures import LogExportFigures
from obsserve.telemetry.spanqueue import SpanQueue
from tracedoubles import Figures

CONFIGURATION = LogExportConfiguration(
    endpoint="http://127.0.0.1:1", destination="http://127.0.0.1:1", protocol="grpc", service_name="shop"
)


class Options:
    otlp_logs = True
    otlp_endpoint = None
    otlp_protocol = None
    service_name = "shop"

    def __init__(self, **given):
        self.__dict__.update(given)


class TestConfiguration:
    def test_off(self):
        assert log_export_configuration(Options(otlp_logs=False), {}) is None
        assert log_export_configuration(Options(), {"OTEL_SDK_DISABLED": "true"}) is None
        assert log_export_configuration(Options(), {"OTEL_LOGS_EXPORTER": "none"}) is None

    def test_by_opentelemetrys_variable(self):
        environ = {
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_BLRP_MAX_QUEUE_SIZE": "100",
            "OTEL_BLRP_SCHEDULE_DELAY": "x",
        }
        found = log_export_configuration(Options(otlp_logs=False), environ)
        assert (found.queue_size, found.batch_size, found.schedule_delay) == (100, 100, 1.0)
        assert "OTEL_BLRP_SCHEDULE_DELAY" in found.notes[0]

    def test_nonsense(self):
        with pytest.raises(StartupError, match="it is no URL"):
            log_export_configuration(Options(otlp_endpoint="c:4317"), {})


class TestSink:
    @pytest.fixture
    def region(self):
        return Cells.create(64, exemplars=0)

    @pytest.fixture
    def queue(self, region):
        return SpanQueue(
            lambda: None, LogExportFigures(region), print, capacity=16, batch_size=100, schedule_delay=1
        )  # fmt: skip

    def test_what_does_not_fit_is_counted_and_errors_last(self, queue, region):
        sink = ExportSink(queue, 16)
        sink.offer(b"".join(b"line %d\n" % n for n in range(1, 21)), "access", [20])
        sink.offer(b"a late error\n", "server", [1])
        sink.offer(b"one too many\n", "server", [1])
        sink.flush()
        assert list(queue.spans)[-4:] == [b"line 13", b"line 14", b"line 20", b"a late error"]
        figures = Figures(region)
        assert figures(catalogue.LOG_EXPORT_PROCESSED, "queue_full") == 22 - 16
        assert figures(catalogue.LOG_EXPORT_QUEUE) == 16


class TestHandlers:
    @pytest.fixture
    def export(self, monkeypatch):
        monkeypatch.setattr(SpanQueue, "start", lambda _queue: None)
        export = LogExport(
            CONFIGURATION, resource={}, version="1", region=Cells.create(64, exemplars=0), report=print
        )
        export.start()
        yield export
        export.shutdown(0)

    def said(self, export):
        return [line.decode() for line in export._queue.spans]

    def test_the_application_only_when_it_has_started(self, export):
        logging.getLogger("shop").warning("too early")
        export.take_app()
        logging.getLogger("shop").warning("in time")
        assert "in time" in self.said(export)[0]
        assert len(self.said(export)) == 1

    def test_a_warning_that_python_would_have_printed_still_is(self, export, monkeypatch, caplog):
        for handler in list(logging.getLogger().handlers):  # pytest's
            logging.getLogger().removeHandler(handler)
        seen = []

        class Resort(logging.Handler):
            def emit(self, record):
                seen.append(record.getMessage())

        monkeypatch.setattr(logging, "lastResort", Resort(logging.WARNING))
        export.take_app()
        logging.getLogger("shop").warning("by nobody")
        assert seen == ["by nobody"]
        handled = logging.getLogger("shop.handled")
        handled.addHandler(logging.NullHandler())
        handled.warning("by a handler")
        assert seen == ["by nobody"]
        assert len(self.said(export)) == 2

    def test_what_exporting_says_is_not_exported(self, export):
        export.take_app()
        thread = threading.Thread(
            target=lambda: logging.getLogger("urllib3").warning("retry"), name=logexport.SENDER
        )
        thread.start()
        thread.join()
        assert self.said(export) == []

    def test_handlers_that_somebody_has_removed_come_back(self, export):
        export.take_app()
        logging.getLogger().handlers.clear()
        export.follow()
        logging.getLogger("shop").warning("again")
        assert len(self.said(export)) == 1

"""An application that changes the logging dictionary when it is imported."""

from parity_apps import plain

from obsserve.config import LOGGING_CONFIG

LOGGING_CONFIG["formatters"]["access"]["fmt"] = (
    'at %(asctime)s %(client_addr)s "%(request_line)s" %(status_code)s'
)

__all__ = ["plain"]

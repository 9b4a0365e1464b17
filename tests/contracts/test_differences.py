"""The README's table of differences from uvicorn: each row has a test that shows it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"

# By the row's matter: file::test, relative to tests/. A row that is added to the README fails here until it is shown.
SHOWN_BY = {
    "Access record": ["http/test_endings.py::test_each_ending", "telemetry/test_accesslog.py::test_every_ending_leaves_a_strict_line"],
    "Log writing": ["integration/test_faults.py::test_a_full_pipe_loses_lines_and_nothing_else", "telemetry/test_logsink.py::test_with_nobody_reading_the_caller_goes_on_and_the_rest_is_dropped"],
    "Log format": ["telemetry/test_accesslog.py::test_an_ordinary_line", "telemetry/test_accesslog.py::test_a_console_line"],
    "Metrics": ["integration/test_faults.py::test_the_metrics_port_answers_while_the_application_blocks"],
    "Blocked event loop": ["integration/test_faults.py::test_the_metrics_port_answers_while_the_application_blocks"],
    "Malformed request": ["http/test_endings.py::test_each_ending", "http/test_framing.py::test_are_refused_by_both_parsers_and_nothing_behind_them_is_served"],
    "Slow clients": ["http/test_endings.py::test_each_ending"],
    "Size limits": ["http/test_endings.py::test_each_ending"],
    "Request deadline": ["http/test_endings.py::test_each_ending", "http/test_flow.py::test_the_requests_own_deadline_holds_while_the_client_does_not_read"],
    "`--limit-concurrency N`": ["http/test_connection.py::test_concurrency_admits_exactly_as_many", "http/test_connection.py::test_idle_connections_do_not_count_as_concurrency", "http/test_admission.py::test_requests_are_let_in_in_the_order_of_their_arrival"],
    "Overload": ["integration/test_overload.py::test_load_is_shed_while_the_loop_lags", "integration/test_overload.py::test_load_is_shed_while_memory_is_short"],
    "contextvars": ["http/test_exchange.py::test_every_request_starts_from_the_servers_context"],
    "Response with one body part and no length": ["http/test_exchange.py::test_head_and_whole_body_of_unknown_length_leave_in_one_write_with_a_length"],
    "HTTP/1.0 with `Connection: keep-alive`": ["http/test_exchange.py::test_is_kept_alive_when_asked"],
    "Application raises after its response is complete": ["http/test_exchange.py::test_after_a_whole_response_the_connection_stays"],
    "Lifespan `auto`": ["asgi/test_lifespan.py::test_auto_knows_a_crash_by_the_startup_event_that_was_received", "integration/test_mistakes.py::test_a_lifespan_that_fails"],
    "Out of file descriptors": ["integration/test_faults.py::test_running_out_of_descriptors_is_survived_told_once_and_counted"],
    "Graceful shutdown": ["integration/test_server.py::test_a_running_request_is_finished_before_the_end", "integration/test_server.py::test_a_request_that_does_not_end_in_time_is_told_so", "integration/test_shutdown.py::test_a_blocked_loop_does_not_hold_the_end_of_a_single_process_up", "integration/test_shutdown.py::test_a_thread_that_goes_on_does_not_hold_the_end_up"],
    "Exit codes": ["integration/test_mistakes.py::test_a_signal_ends_it_with_success", "integration/test_mistakes.py::test_one_line_and_no_traceback"],
    "Worker that dies": ["integration/test_workers.py::test_a_killed_worker_has_a_successor_and_keeps_what_it_counted", "integration/test_workers.py::test_a_crash_loop_ends_the_server"],
    "Replacing workers": ["integration/test_workers.py::test_no_request_is_lost_when_workers_are_replaced", "integration/test_recycling.py::test_a_worker_that_has_grown_is_replaced_and_no_request_is_lost"],
    "Hung event loop": ["integration/test_recycling.py::test_a_blocked_loop_is_killed_if_asked_for_and_its_stack_is_told", "integration/test_recycling.py::test_a_slow_import_is_told_and_not_cut_short"],
    "`--reload`": ["integration/test_reloading.py::test_an_edit_is_served_and_a_broken_one_leaves_the_code_of_before", "integration/test_reloading.py::test_a_stream_holds_nothing_up"],
    "systemd": ["integration/test_service_manager.py::test_ready_when_it_serves_and_stopping_before_it_drains", "realparts/test_proxies.py::test_systemd_socket_activate"],
    "`--fd N`": ["server/test_listeners.py::test_any_family", "integration/test_server.py::test_a_descriptor_that_is_handed_in"],
    "`--uds PATH`": ["integration/test_service_manager.py::test_a_unix_socket_has_its_permissions_and_leaves_no_file", "integration/test_service_manager.py::test_a_successor_at_the_same_path_keeps_it"],
    "Container health check": ["test_healthcheck.py::test_well", "test_healthcheck.py::test_not_well"],
    "A look into a running server": ["test_top.py::test_a_real_server", "test_top.py::test_no_escape_sequence_of_a_client_reaches_the_terminal"],
    "Mistakes": ["integration/test_mistakes.py::test_one_line_and_no_traceback", "integration/test_mistakes.py::test_an_application_that_raises_when_imported_shows_its_traceback_once"],
    "Options": ["test_options.py::test_a_flag_before_the_environment_before_the_file_before_the_default", "test_options.py::test_each_value_has_its_origin", "test_main.py::test_check_config"],
    "WebSocket records": ["integration/test_websocket.py::test_the_application_ends_it"],
    "WebSocket and `--limit-concurrency`": ["integration/test_websocket.py::test_sessions_count_against_the_concurrency_limit"],
    "Small WebSocket messages": ["websocket/test_websocket_connection.py::test_small_messages_are_not_compressed"],
    "Request id": ["integration/test_three_signals.py::test_the_same_story_three_times"],
    "Ids on the application's log lines": ["integration/test_three_signals.py::test_ids_do_not_leak_between_pipelined_and_concurrent_requests"],
    "TLS": ["integration/test_tls.py::test_certificates_are_renewed_under_load_without_a_failed_handshake", "integration/test_tls.py::test_the_extension_and_the_line_tell_of_the_connection", "integration/test_tls.py::test_what_is_older_than_tls_1_2_is_refused"],
    "Tracing": ["integration/test_three_signals.py::test_the_same_story_three_times"],
    "Forwarding headers": ["http/test_forwarded.py::test_the_client_is_the_nearest_hop_that_is_not_trusted"],
    "Forwarding header of an untrusted peer": ["integration/test_proxy_protocol.py::test_a_forwarding_header_of_an_untrusted_peer_is_told_once_and_counted"],
    "PROXY protocol": ["integration/test_proxy_protocol.py::test_the_client_is_the_one_that_the_proxy_names", "integration/test_tls.py::test_the_proxy_protocol_comes_before_the_handshake"],
    "Proxy on a unix socket": ["realparts/test_proxies.py::test_nginx", "http/test_forwarded.py::test_trust"],
    "Custom protocol classes (`--http`, `--ws module:Class`)": ["integration/test_parity_protocols.py::test_it_serves_behind_a_proxy", "integration/test_custom_websocket.py::test_it_serves_and_its_handshakes_are_observed"],
    "Dashboards, alerts, deployments": ["test_export.py::test_deploy_with_all_that_it_refers_to"],
    "`Server` header": ["http/test_state.py::test_default_headers"],
}  # fmt: skip

# Rows whose test is still to be named above.
TO_BE_NAMED: set[str] = set()


def matters():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| Matter | uvicorn | obsserve |") :].split("\n\n", 1)[0]
    return [re.split(r"(?<!\\)\|", row)[1].strip() for row in table.splitlines()[2:]]


def functions_in(path):
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_row_is_shown_and_nothing_else():
    assert sorted(matters()) == sorted([*SHOWN_BY, *TO_BE_NAMED])


@pytest.mark.parametrize("matter", SHOWN_BY)
def test_what_shows_it_exists(matter):
    for shown in SHOWN_BY[matter]:
        path, name = shown.split("::")
        assert name in functions_in(path), shown

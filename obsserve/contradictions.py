"""Values that are right by themselves and do not go together, or hardly do what is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from obsserve.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obsserve.settings import Settings


def contradictions(settings: Settings) -> Iterator[Problem]:
    """Find what contradicts itself in settings whose values are each as their check returned them."""
    yield from _of_listening(settings)
    hashes = settings.log_client_ip == "hash" or any(
        getattr(rule, "mode", None) == "hash" for rule in settings.log_field
    )
    if hashes and not settings.log_hash_key:
        yield Problem("log_hash_key", "hashed fields need a key", "set OBSSERVE_LOG_HASH_KEY to a secret")
    budget = settings.timeout_graceful_shutdown
    if settings.shutdown_delay and budget is not None and settings.shutdown_delay >= budget:
        yield Problem(
            "shutdown_delay",
            f"{settings.shutdown_delay:g} s of delay leave no time to drain in the {budget:g} s of "
            "timeout_graceful_shutdown",
            "give more timeout_graceful_shutdown",
        )
    if settings.limit_queue is not None and settings.limit_concurrency is None:
        yield Problem("limit_queue", "without limit_concurrency nothing has to wait", "give both")
    workers = settings.workers
    if settings.ready_min_workers > workers:
        there = "there is only 1 worker" if workers == 1 else f"there are only {workers} workers"
        yield Problem("ready_min_workers", there, "give at most so many")


def _of_listening(settings: Settings) -> Iterator[Problem]:
    elsewhere = settings.uds is not None or settings.fd is not None
    if settings.uds is not None and settings.fd is not None:
        yield Problem("uds", "it excludes fd", "give one of the two")
    if settings.reuse_port and elsewhere:
        yield Problem("reuse_port", "it is for host and port", "leave it out, or uds and fd")
    if settings.proxy_protocol and (not isinstance(settings.http, str) or ":" in settings.http):
        yield Problem("proxy_protocol", "a protocol class of http does not speak it", "turn it off")
    serves_on = None if elsewhere else (settings.host, settings.port)
    if settings.metrics_port and (settings.metrics_host, settings.metrics_port) == serves_on:
        yield Problem("metrics_port", "the application listens on this port", "give another one")


def tell_doubts(settings: Settings, log: Any) -> None:
    """Warn of what can be served with and is hardly meant; once for each server, not for each worker."""
    for doubt in doubts(settings):
        log.warning("server.warning", message=doubt)


def doubts(settings: Settings) -> Iterator[str]:
    """Find what can be served with and is hardly meant; each is a line for the operator."""
    watching = settings.reload_dirs or settings.reload_includes or settings.reload_excludes
    if watching and not settings.reload:
        yield "reload_dirs, reload_includes and reload_excludes do nothing without reload"
    root = settings.root_path
    if root and (not root.startswith("/") or root.endswith("/")):
        yield f"root_path {root!r} should begin with a slash and end without one, such as /api"
    for peer in settings.forwarded_allow_ips:
        if settings.proxy_headers and not _can_be_a_peer(peer):
            yield f"forwarded_allow_ips names {peer!r}, which is no address: names are not looked up, so it trusts nobody"


def _can_be_a_peer(peer: str) -> bool:
    from ipaddress import ip_address  # noqa: PLC0415  (for the server, not for --help)

    if peer in ("*", "unix") or "/" in peer:
        return True
    try:
        ip_address(peer)
    except ValueError:
        return False
    return True

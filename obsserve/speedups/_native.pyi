from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, final

REVISION: int

def request(resource: bytes, scope: bytes, batch: Batch, /) -> bytes: ...

@final
class Batch:
    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> bytes: ...

@final
class Spans:
    def __len__(self) -> int: ...
    def append(self, span: bytes, /) -> None: ...
    def take(self, count: int, /) -> Batch: ...
    def clear(self) -> None: ...

@final
class Chain:
    def __new__(
        cls, *, calls: tuple[Callable[[Any], object], ...], failed: Callable[[int, Exception], object]
    ) -> Chain: ...
    def __call__(self, view: Any, /) -> None: ...

@final
class Prototype:
    def __new__(cls, *, first: object, slots: tuple[str, ...], given: tuple[str, ...]) -> Prototype: ...
    def __call__(self, *given: Any) -> Any: ...

@final
class Counts:
    def __new__(
        cls,
        *,
        slots: memoryview[float],
        rows: dict[tuple[str, str, int | None, str], int],
        begun: dict[tuple[str, str], int],
        reused: int,
        places: tuple[int, ...],
        latency: tuple[float, ...],
        queue: tuple[float, ...],
        due: dict[int, float],
        note: Callable[[Any, int, int], None] | None,
        sampled_only: bool,
        start_otherwise: Callable[[Any], None],
        end_otherwise: Callable[[Any], None],
    ) -> Counts: ...
    def started(self, view: Any, /) -> None: ...
    def ended(self, view: Any, /) -> None: ...

@final
class Lines:
    def __new__(
        cls,
        *,
        requests: dict[Any, str],
        senders: dict[Any, tuple[str, str, str]],
        sizes: dict[Any, str],
        pieces: tuple[str, ...],
        envelope: str,
        clock: Any,
        lag: Any,
        otherwise: Callable[[Any], None],
        full: Callable[[], None],
        most: int,
    ) -> Lines: ...
    @property
    def count(self) -> int: ...
    def write(self, view: Any, /) -> None: ...
    def add(self, line: str, /) -> int: ...
    def take(self) -> tuple[bytes, int]: ...
    def turn(self, second: float, head: str, start_head: str, /) -> None: ...

@final
class Encoder:
    def __new__(
        cls,
        *,
        answers: dict[Any, bytes],
        targets: dict[Any, bytes],
        senders: dict[Any, bytes],
        pieces: tuple[bytes, ...],
        numbers: tuple[tuple[bytes, ...], ...],
        texts: tuple[bytes, ...],
        clock: Any,
        lag: Any,
        otherwise: Callable[[Any, Any], bytes],
        root: type,
        child: type,
    ) -> Encoder: ...
    def encode(self, view: Any, span: Any, /) -> bytes: ...

@final
class Tracer:
    def __new__(
        cls,
        *,
        ids: list[tuple[int, str, str]],
        fill: Callable[[], None],
        slots: memoryview[float],
        limits: Any,
        variable: ContextVar[Any] | None,
        attach: Callable[[Any], object],
        queue: Any,
        waiting: Any,
        append: Callable[[bytes], None],
        wake: Callable[[], None],
        refuse: Callable[[], None],
        encode: Callable[[Any, Any], bytes],
        start_otherwise: Callable[[Any], None],
        end_otherwise: Callable[[Any], None],
        root: type,
        child: type,
        root_kept: int,
        root_left_out: int,
        bound: int,
    ) -> Tracer: ...
    @property
    def open(self) -> int: ...
    def start(self, view: Any, /) -> None: ...
    def end(self, view: Any, /) -> None: ...

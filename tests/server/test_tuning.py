"""What a process sets once."""

import subprocess
import sys

import pytest

# Where glibc puts a megabyte: on the heap, or in a mapping of its own.
WHERE = """
import ctypes, sys
from obsserve.server.tuning import tune_process
libc = ctypes.CDLL(None)
try:
    libc.gnu_get_libc_version
except AttributeError:
    sys.exit("no glibc")
if sys.argv[1] == "tuned":
    tune_process()
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
address = libc.malloc(1 << 20)
heap = next(line for line in open("/proc/self/maps") if "[heap]" in line).split()[0]
print(*(int(end, 16) for end in heap.split("-")), address)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a matter of glibc")
@pytest.mark.parametrize("tuned", [True, False])
def test_large_blocks_come_from_the_heap(tuned):
    command = [sys.executable, "-c", WHERE, "tuned" if tuned else "untouched"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if "no glibc" in process.stderr:
        pytest.skip("the C library is not glibc, which alone has such a threshold")
    start, end, address = map(int, process.stdout.split())
    assert (start <= address < end) is tuned


COLLECTING = """
import gc, sys
from obsserve.server.tuning import tune_process
if sys.argv[1] != "as it is":
    gc.set_threshold(*map(int, sys.argv[1].split()))
_, *older = gc.get_threshold()
tune_process()
print(gc.get_threshold()[0], list(gc.get_threshold()[1:]) == older)
"""


@pytest.mark.parametrize(
    "before, after",
    [
        ("as it is", 10_000),
        ("700 10 10", 10_000),
        ("50000 20 50", 50_000),
        ("0 10 10", 0),
        ("300 10 10", 300),
    ],
)
def test_garbage_is_collected_seldom_unless_the_application_has_its_own_mind(before, after):
    command = [sys.executable, "-c", COLLECTING, before]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == [str(after), "True"]

"""Cells: what one side adds, the other side reads, and nothing of it is torn or lost."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obsserve.telemetry import cells as module
from obsserve.telemetry.catalogue import Metric
from obsserve.telemetry.cells import STRIDE, Base, Cells, CellsReader, Family, merged

TRACE = bytes(range(16))
SPAN = bytes(range(8))


@pytest.fixture
def region():
    region = Cells.create(rows=32, exemplars=4)
    yield region
    region.close()


@pytest.fixture
def reader(region):
    reader = region.reader()
    yield reader
    reader.close()


def counted(rows):
    """Label sets with the values that are not zero, by column."""
    found = {}
    for row in rows:
        values = {column: value for column, value in enumerate(row.values) if value}
        if values:
            found[row.metric, row.labels] = values
    return found


labels = st.tuples(st.text(max_size=20), st.sampled_from(["a", "b", 'quo"te\\\n', "ü\u2028"]))
additions = st.lists(
    st.tuples(labels, st.integers(0, STRIDE - 1), st.floats(0, 1e12, allow_nan=False)), max_size=40
)


class TestReadingBack:
    @settings(max_examples=60, deadline=None)
    @given(additions)
    def test_a_second_mapping_reads_what_was_added(self, adds):
        region = Cells.create(rows=128)
        reader = region.reader()
        rows, expected = {}, {}
        for label_set, column, amount in adds:
            if label_set not in rows:
                rows[label_set] = region.row("metric", label_set)
            region.slots[rows[label_set] + column] += amount
            columns = expected.setdefault(("metric", label_set), {})
            columns[column] = columns.get(column, 0.0) + amount
        nonzero = {key: {c: v for c, v in columns.items() if v} for key, columns in expected.items()}
        assert counted(reader.rows()) == {key: columns for key, columns in nonzero.items() if columns}
        reader.close()
        region.close()

    def test_rows_published_later_are_seen_by_the_same_reader(self, region, reader):
        assert reader.rows() == []
        region.slots[region.row("one", ())] = 1.0
        assert counted(reader.rows()) == {("one", ()): {0: 1.0}}
        region.slots[region.row("two", ("x",))] = 2.0
        assert counted(reader.rows()) == {("one", ()): {0: 1.0}, ("two", ("x",)): {0: 2.0}}

    def test_what_was_read_does_not_change_afterwards(self, region, reader):
        slot = region.row("one", ())
        region.slots[slot] = 1.0
        (row,) = reader.rows()
        region.slots[slot] = 2.0
        assert row.values[0] == 1.0

    def test_a_lone_surrogate_does_not_reach_the_exposition(self, region, reader):
        region.row("one", ("\ud800x",))
        assert [row.labels for row in reader.rows()] == [("?x",)]

    def test_another_process_attaches_an_inherited_descriptor(self, region):
        region.slots[region.row("one", ("x",)) + 3] = 4.5
        code = (
            "import sys; from obsserve.telemetry.cells import CellsReader\n"
            "row, = CellsReader.attach(int(sys.argv[1])).rows()\n"
            "print(row.metric, row.labels, row.values[3])"
        )
        output = subprocess.run(
            [sys.executable, "-c", code, str(region.fileno())],
            pass_fds=[region.fileno()],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert output == "one ('x',) 4.5\n"

    def test_what_a_killed_process_had_counted_is_still_there(self, tmp_path):
        code = (
            "import os, signal, sys; from obsserve.telemetry.cells import Cells\n"
            "region = Cells.create(rows=8, path=sys.argv[1])\n"
            "slot = region.row('one', ())\n"
            "for _ in range(1000): region.slots[slot] += 1\n"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        path = tmp_path / "cells"
        subprocess.run([sys.executable, "-c", code, str(path)], check=False)
        reader = CellsReader.attach(path)
        path.unlink()
        assert counted(reader.rows()) == {("one", ()): {0: 1000.0}}
        reader.close()

    def test_a_region_with_a_path_can_be_unlinked_once_both_sides_hold_it(self, tmp_path):
        path = tmp_path / "cells"
        region = Cells.create(rows=8, path=path)
        reader = CellsReader.attach(path)
        region.unlink()
        assert not path.exists()
        region.slots[region.row("one", ())] = 1.0
        assert counted(reader.rows()) == {("one", ()): {0: 1.0}}
        reader.close()
        region.close()

    def test_without_memfd_a_nameless_file_serves(self, monkeypatch):
        monkeypatch.delattr(os, "memfd_create", raising=False)
        region = Cells.create(rows=8)
        reader = region.reader()
        region.slots[region.row("one", ())] = 1.0
        assert counted(reader.rows()) == {("one", ()): {0: 1.0}}
        reader.close()
        region.close()

    def test_anything_else_is_refused(self, tmp_path):
        path = tmp_path / "other"
        path.write_bytes(b"x" * 4096)
        with pytest.raises(ValueError, match="not a region"):
            CellsReader.attach(path)

    def test_a_path_that_exists_is_never_taken_over(self, tmp_path):
        path = tmp_path / "cells"
        path.write_bytes(b"precious")
        with pytest.raises(FileExistsError):
            Cells.create(rows=8, path=path)
        assert path.read_bytes() == b"precious"


class TestDirectory:
    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_a_torn_entry_is_never_shown(self, data):
        region = Cells.create(rows=8)
        reader = region.reader()
        region.row("first", ("kept",))
        region.row("second", ("torn away",))
        directory = region._mapping.directory
        second = bytes(directory[: region._directory_end]).index(b'["second"')
        (length,) = struct.unpack_from("=I", directory, second - 8)
        position = data.draw(st.integers(second - 8, second + length - 1), "position")
        before = directory[position]
        directory[position] = data.draw(st.integers(0, 255).filter(lambda byte: byte != before), "byte")
        assert [row.metric for row in reader.rows()] == ["first"]
        directory[position] = before
        assert [row.metric for row in reader.rows()] == ["first", "second"]
        reader.close()
        region.close()

    def test_an_entry_is_not_shown_before_the_count_says_so(self, region, reader):
        region.row("one", ())
        region._mapping.header[module._ROW_COUNT] = 0
        assert reader.rows() == []
        region._mapping.header[module._ROW_COUNT] = 1
        assert [row.metric for row in reader.rows()] == ["one"]


class TestOverflow:
    def test_a_full_region_lets_label_sets_share_the_overflow_row(self):
        region = Cells.create(rows=4)
        reader = region.reader()
        slots = [region.row("metric", (str(n),)) for n in range(10)]
        for slot in slots:
            region.slots[slot] += 1
        assert len(set(slots[:4])) == 4
        assert len(set(slots[4:])) == 1
        assert counted(reader.rows())["metric", None] == {0: 6.0}
        reader.close()
        region.close()

    def test_a_label_set_too_long_for_the_directory_goes_there_too(self, region, reader):
        slot = region.row("metric", ("x" * 1_000_000,))
        assert slot == region.overflow_row("metric")
        assert [row.labels for row in reader.rows()] == [None]

    def test_the_reserve_has_an_end(self):
        region = Cells.create(rows=1)
        with pytest.raises(module.CellsFullError):
            for n in range(1000):
                region.row(f"metric{n}", ())
        region.close()

    def test_a_family_keeps_to_the_bound_of_its_metric(self, region, reader):
        family = Family(region, Metric("m_total", "counter", "", ("l",), bound=2))
        for n in range(5):
            family.add(1.0, str(n))
        assert counted(reader.rows()) == {
            ("m_total", ("0",)): {0: 1.0},
            ("m_total", ("1",)): {0: 1.0},
            ("m_total", None): {0: 3.0},
        }


class TestFamily:
    def test_a_histogram_has_its_buckets_then_infinity_then_the_sum(self, region, reader):
        family = Family(region, Metric("m", "histogram", "", (), (1.0, 2.0)))
        for value in (0.5, 1.0, 1.5, 9.0):
            family.observe(value)
        (row,) = reader.rows()
        assert list(row.values[:4]) == [2.0, 1.0, 1.0, 12.0]

    def test_known_label_sets_are_there_at_zero(self, region, reader):
        Family(region, Metric("m_total", "counter", "", ("l",), bound=5), [("a",), ("b",)])
        assert [(row.labels, row.values[0]) for row in reader.rows()] == [(("a",), 0.0), (("b",), 0.0)]


class TestFolding:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(additions.filter(bool), min_size=1, max_size=4))
    def test_counters_are_summed_over_generations(self, generations):
        base, expected = Base(), {}
        for adds in generations:
            region = Cells.create(rows=128)
            gauge = region.row("gauge", (), is_gauge=True)
            region.slots[gauge] = 7.0
            for label_set, column, amount in adds:
                region.slots[region.row("metric", label_set) + column] += amount
                columns = expected.setdefault(("metric", label_set), [0.0] * STRIDE)
                columns[column] += amount
            reader = region.reader()
            region.close()  # gone: only the reader's mapping is left
            base.fold(reader)
            reader.close()
        folded = {(row.metric, row.labels): list(row.values) for row in base.rows()}
        assert folded.keys() == expected.keys()
        for key, values in expected.items():
            assert folded[key] == pytest.approx(values)

    def test_counters_do_not_go_backwards_when_a_process_is_replaced(self, region, reader):
        slot = region.row("metric", ())
        region.slots[slot] = 5.0
        base = Base()
        base.fold(reader)
        assert [row.values[0] for row in base.rows()] == [5.0]
        base.fold(reader)
        assert [row.values[0] for row in base.rows()] == [10.0]

    def test_the_newer_exemplar_wins(self, region, reader):
        slot = region.row("metric", ())
        region.exemplar(slot, 1.0, 100.0, TRACE, SPAN)
        (old,) = reader.rows()
        region.exemplar(slot, 2.0, 200.0, TRACE, SPAN)
        (new,) = reader.rows()
        assert merged(old, new).exemplars[0].value == merged(new, old).exemplars[0].value == 2.0


class TestExemplars:
    def test_they_belong_to_a_row_and_a_column(self, region, reader):
        region.row("other", ())
        row = region.row("metric", ("x",))
        assert region.exemplar(row + 3, 0.25, 1700000000.5, TRACE, SPAN)
        found = {r.metric: r.exemplars for r in reader.rows()}
        assert found["other"] == {}
        assert found["metric"] == {3: (0.25, 1700000000.5, TRACE.hex(), SPAN.hex())}

    def test_the_newest_takes_the_place(self, region, reader):
        slot = region.row("metric", ())
        for value in range(10):
            assert region.exemplar(slot, float(value), 0.0, TRACE, SPAN)
        assert region._mapping.header[module._EXEMPLAR_COUNT] == 1
        assert reader.rows()[0].exemplars[0].value == 9.0

    def test_there_is_an_end_to_them(self, region):
        assert [region.exemplar(n, 1.0, 0.0, TRACE, SPAN) for n in range(6)] == [True] * 4 + [False] * 2
        assert region.exemplar(2, 5.0, 0.0, TRACE, SPAN)

    @pytest.mark.parametrize("damage", ["sequence", "value"])
    def test_a_torn_one_is_left_out(self, region, reader, damage):
        slot = region.row("metric", ())
        region.exemplar(slot, 1.0, 0.0, TRACE, SPAN)
        with region._mapping.exemplars[:64].cast("Q") as fields:
            fields[0 if damage == "sequence" else 3] += 1
        assert reader.rows()[0].exemplars == {}

    def test_one_that_was_interrupted_can_be_written_again(self, region, reader):
        slot = region.row("metric", ())
        region.exemplar(slot, 1.0, 0.0, TRACE, SPAN)
        with region._mapping.exemplars[:64].cast("Q") as fields:
            fields[0] |= 1
        region.exemplar(slot, 2.0, 0.0, TRACE, SPAN)
        assert reader.rows()[0].exemplars[0].value == 2.0


def test_the_layout_is_what_the_module_says(region):
    """Another version of the server must be able to trust the page: magic, version, stride, then the parts."""
    with mmap.mmap(region.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        magic, version, stride, rows, directory, exemplars, start = struct.unpack_from("=8s6Q", memory)
        assert (magic, version, stride, exemplars) == (b"obsserve", 1, 64, 4)
        assert start == 16 * 8 + directory + exemplars * 64
        assert len(memory) == start + rows * stride * 8
        slot = region.row("metric", ("x",))
        region.slots[slot] = 2.5
        length, _checksum = struct.unpack_from("=II", memory, 128)
        assert memory[136 : 136 + length] == b'["metric",false,["x"]]'
        assert struct.unpack_from("=d", memory, start + slot * 8) == (2.5,)
        assert start % 64 == 0

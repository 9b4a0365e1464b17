"""Our decision is the official samplers' decision."""

from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context.context import Context
from opentelemetry.sdk.trace import sampling as official
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from obsserve.telemetry import sampling
from obsserve.telemetry.sampling import Sampling, sampling_of

NAMES = sorted(official._KNOWN_SAMPLERS)
TRACE_IDS = st.integers(1, 2**128 - 1)


def no_notes(note):
    raise AssertionError(note)


def official_sampler(name, ratio):
    known = official._KNOWN_SAMPLERS[name]
    return known(ratio) if "ratio" in name else known


@given(st.sampled_from(NAMES), st.floats(0, 1), TRACE_IDS, st.none() | st.integers(0, 255))
def test_the_same_decision(name, ratio, trace_id, parent_flags):
    context = Context()
    if parent_flags is not None:
        parent = SpanContext(trace_id, 7, True, TraceFlags(parent_flags))
        context = set_span_in_context(NonRecordingSpan(parent), context)
    ours = sampling_of(name, str(ratio), no_notes)
    expected = official_sampler(name, ratio).should_sample(context, trace_id, "GET").decision.is_sampled()
    assert ours.samples(trace_id, parent_flags) is expected
    assert ours.official().should_sample(context, trace_id, "GET").decision.is_sampled() is expected


@pytest.mark.parametrize("name", NAMES)
def test_the_official_sampler_for_the_application(name):
    ours = sampling_of(name.upper(), "0.25", no_notes).official()
    assert ours.get_description() == official_sampler(name, 0.25).get_description()


@pytest.mark.parametrize("argument", ["", "much", "1.5", "-1", "nan"])
def test_a_ratio_that_is_none(argument):
    notes = []
    assert sampling_of("traceidratio", argument, notes.append).samples(2**128 - 1, None)
    assert len(notes) == 1


def test_an_unknown_sampler_is_the_default():
    notes = []
    assert sampling_of("no_such_sampler", "", notes.append) == Sampling()
    assert "no_such_sampler" in notes[0]


def test_a_sampler_of_an_entry_point(monkeypatch):
    point = EntryPoint("mine", "opentelemetry.sdk.trace.sampling:_AlwaysOff", "opentelemetry_traces_sampler")
    monkeypatch.setattr(sampling, "entry_points", lambda group, name: [point])
    found = sampling_of("mine", "7", no_notes)
    assert found.custom.get_description() == "AlwaysOffSampler"
    assert found.official() is found.custom

"""Which requests are traced, who is told of it, and what spans say (docs/metrics.md, "Traces")."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from routeproxy.exchange import Trace
from routeproxy.policy.telemetry import TraceSettings
from routeproxy.traces.conventions import attempt_attributes
from routeproxy.traces.exporter import is_wanted
from routeproxy.traces.ids import parent_of
from tests.backend import BackEnd, answer, completion, error, json_answer
from tests.ledger.rows import attempt, request
from tests.running import Running, running, until
from tests.running import request as body
from tests.wire.asking import answers

pytest.importorskip("opentelemetry.proto", reason="OpenTelemetry is not installed")

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", (TRACE, SPAN)),
        (f"00-{TRACE}-{SPAN}-00", (TRACE, SPAN)),
        (f"01-{TRACE}-{SPAN}-09", (TRACE, SPAN)),
        (f"ff-{TRACE}-{SPAN}-01", (None, None)),
        (f"00-{'0' * 32}-{SPAN}-01", (None, None)),
        (f"00-{TRACE}-{'0' * 16}-01", (None, None)),
        (f"00-{TRACE.upper()}-{SPAN}-01", (None, None)),
        ("nonsense", (None, None)),
        (None, (None, None)),
    ],
)
def test_a_client_may_say_which_trace_it_belongs_to(written: str | None, expected: Any) -> None:
    assert parent_of(written) == expected


def wanted(*always: Any, is_sampled: bool = False, **fields: Any) -> bool:
    trace = Trace(trace_id=TRACE, span_id=SPAN, is_sampled=is_sampled)
    attempts = fields.pop("attempts", (attempt(),))
    return is_wanted(
        request(1, *attempts, **fields), trace, TraceSettings(endpoint="", always=frozenset(always))
    )


def test_failures_and_fallbacks_are_traced_besides_if_that_is_asked_for() -> None:
    fell_back = (attempt(failure="server_error"), attempt(2, provider="azure"))
    again = (attempt(failure="server_error"), attempt(2))
    assert wanted(is_sampled=True)
    assert not wanted("error", "fallback")
    assert wanted("error", error="api_error", status=500)
    assert not wanted("fallback", error="api_error", status=500)
    assert not wanted("error", error="invalid_request_error", status=400, denied=True)
    assert wanted("fallback", attempts=fell_back)
    assert not wanted("fallback", attempts=again)


def test_the_conventions_input_has_the_cache_in_it() -> None:
    row = attempt(cache_write_5m=5, cache_write_other=None, served_model="gpt-5-2025", first_content=2500)
    assert attempt_attributes(row, "azure") == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "gpt-5", "gen_ai.response.model": "gpt-5-2025",
        "gen_ai.usage.input_tokens": 155, "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 50, "gen_ai.usage.cache_creation.input_tokens": 5,
        "routeproxy.provider": "openai", "routeproxy.purpose": "answer",
        "routeproxy.usage_source": "reported",
        "routeproxy.cost_usd": 7e-9, "routeproxy.time_to_first_token_ms": 2.5,
    }  # fmt: skip


def test_what_is_not_known_is_not_said() -> None:
    row = attempt(usage_source="none", input_uncached=None, cache_read=None, output=None, cost_nanousd=None)
    assert not [name for name in attempt_attributes(row, "openai") if "usage." in name or "cost" in name]


# --- over the wire

RULES = """
[telemetry]
traces = {{ endpoint = "{collector}/v1/traces", ratio = {ratio}, always = ["error", "fallback"] }}

[providers.near]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"
zone = "local"

[providers.far]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"

[providers.told]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"
forward = ["traceparent", "tracestate", "baggage"]

[[rules]]
match.model.equals = "far"
targets = "far/m"

[[rules]]
match.model.equals = "told"
targets = "told/m"

[[rules]]
match.model.equals = "both"
targets = ["near/m", "far/m"]

[[rules]]
match.model.equals = "looked-into"
targets = "near/m"
record = "content"

[default]
targets = "near/m"
"""


class Scene:
    def __init__(self, proxy: Running, back_end: BackEnd, collector: BackEnd) -> None:
        self.proxy, self.back_end, self.collector = proxy, back_end, collector
        answers(back_end, json_answer(completion("Hello")))
        answers(collector, answer(200, b"", content_type="application/x-protobuf"))
        collector.requests.clear()

    def ask(self, model: str = "m", **headers: str) -> str | None:
        """The `traceparent` that the back end got."""
        self.proxy.post(body(model=model), **headers)
        return self.back_end.last.header("traceparent")

    def spans(self) -> list[Any]:
        """Those that the collector got, once the server has stopped or its batch is due."""
        import gzip

        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found = []
        for received in self.collector.requests:
            data = received.body
            if received.header("content-encoding") == "gzip":
                data = gzip.decompress(data)
            for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                for scope in resource.scope_spans:
                    found += scope.spans
        return found


Serve = Callable[[float], Scene]


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[BackEnd, BackEnd]]:
    with BackEnd() as one, BackEnd() as two:
        yield one, two


@pytest.fixture
def serve(ends: tuple[BackEnd, BackEnd], tmp_path: Path) -> Iterator[Serve]:
    opened = []

    def start(ratio: float) -> Scene:
        back_end, collector = ends
        text = RULES.format(url=back_end.url, collector=collector.url, ratio=ratio)
        opened.append(proxy := running(text, tmp_path))
        return Scene(proxy.__enter__(), back_end, collector)

    yield start
    for proxy in opened:
        proxy.__exit__(None, None, None)


def test_a_trace_goes_on_to_our_own_back_ends_and_to_public_ones_only_by_forward(serve: Serve) -> None:
    scene = serve(1.0)
    client = {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "a=b", "baggage": "user=ann"}
    for model, goes_on in (("m", True), ("far", False), ("told", True)):
        sent = scene.ask(model, **client)
        assert (sent is not None) == goes_on
        if sent is not None:
            version, trace, span, flags = sent.split("-")
            assert (version, trace, flags) == ("00", TRACE, "01")
            assert span != SPAN
        assert scene.back_end.last.header("tracestate") is None
        assert scene.back_end.last.header("baggage") is None


def test_whether_it_is_recorded_is_ours_to_say(serve: Serve) -> None:
    scene = serve(0.0)
    assert str(scene.ask(traceparent=f"00-{TRACE}-{SPAN}-01")).endswith("-00")


def test_without_a_trace_of_the_client_there_is_a_new_one(serve: Serve) -> None:
    scene = serve(0.0)
    first, second = scene.ask(), scene.ask()
    assert first is not None
    assert second is not None
    assert first.split("-")[1] != second.split("-")[1]


def test_spans_of_the_request_and_of_its_attempts_reach_the_collector(serve: Serve) -> None:
    scene = serve(0.0)
    scene.ask()  # it is not sampled, and all is well
    answers(scene.back_end, error(503, "down"))
    scene.ask("both", traceparent=f"00-{TRACE}-{SPAN}-01")
    until(lambda: len(scene.spans()) == 3, 15)
    request_span, first, second = scene.spans()
    assert request_span.name == "POST /v1/messages"
    assert (request_span.trace_id.hex(), request_span.parent_span_id.hex()) == (TRACE, SPAN)
    for span in (first, second):
        assert (span.name, span.parent_span_id) == ("chat m", request_span.span_id)
        assert request_span.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert _texts(span)["error.type"] == "overloaded"
    assert [_texts(span)["routeproxy.provider"] for span in (first, second)] == ["near", "far"]


def test_the_collector_hears_what_was_asked_only_where_a_rule_wants_it(serve: Serve) -> None:
    scene = serve(1.0)
    scene.ask("looked-into")
    scene.ask()
    until(lambda: len(scene.spans()) == 4, 15)
    looked_into, _, other, _ = scene.spans()
    assert '"parts"' in _texts(looked_into)["gen_ai.input.messages"]
    for span in scene.spans()[1:]:
        assert not [name for name in _texts(span) if "messages" in name or "instructions" in name]
    assert other.name == looked_into.name


def _texts(span: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


def test_a_collector_that_is_gone_costs_nobody_an_answer(serve: Serve, ends: tuple[BackEnd, BackEnd]) -> None:
    scene = serve(1.0)
    answers(scene.collector, error(503, "down"))
    for _ in range(5):
        assert scene.ask() is not None

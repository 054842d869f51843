"""What counts as a chunk of a chat completion, what stands beside the answer, and what is refused."""

import json
from typing import Any

import pytest

from routeproxy.messages.events import accumulate
from routeproxy.messages.reply import Message
from routeproxy.upstream.chat.completions import ChatCompletionsDecoder
from routeproxy.upstream.chat.gemini import GeminiDecoder
from routeproxy.upstream.chat.ollama import OllamaDecoder
from tests.translate import answering

HI = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def answer(data: bytes, **settings: Any) -> Any:
    """What the client gets of a stream."""
    decoder = ChatCompletionsDecoder()
    chunks = [*decoder.feed(data)[0], *decoder.end()[0]]
    return accumulate(answering.events_of(*chunks, **settings))


def event(fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


class TestObjectsInAStream:
    @pytest.mark.parametrize(
        "innocent",
        [
            pytest.param(b": OPENROUTER PROCESSING\n\n", id="a comment"),
            pytest.param(b": keep-alive\n\n", id="DeepSeek's"),
            pytest.param(b"data: {}\n\n", id="an empty object"),
            pytest.param(b"event: ping\ndata: {}\n\n", id="an empty event"),
            pytest.param(event({"type": "ping"}), id="a ping"),
            pytest.param(event({"choices": []}), id="no choices"),
            pytest.param(event({"choices": None, "id": "x", "object": "chat.completion.chunk"}), id="null"),
            pytest.param(event({"choices": [], "usage": {"prompt_tokens": 3}}), id="usage"),
            pytest.param(event({"usage": {"prompt_tokens": 3, "completion_tokens": 2}}), id="only usage"),
            pytest.param(
                event(
                    {
                        "choices": [],
                        "created": 0,
                        "id": "",
                        "model": "",
                        "object": "",
                        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
                    }
                ),
                id="Azure's first",
            ),
            pytest.param(
                event({"choices": [{"index": 0, "content_filter_results": {}, "finish_reason": None}]}),
                id="Azure's filter, later",
            ),
            pytest.param(event({"id": "x", "x_groq": {"id": "req_1"}}), id="Groq's"),
            pytest.param(event({"choices": [], "citations": ["https://a.example"]}), id="citations"),
            pytest.param(event({"citations": ["https://a.example"], "model": "sonar"}), id="only citations"),
            pytest.param(event({"sources": [{"document": ["a"]}]}), id="Open WebUI's sources"),
            pytest.param(event({"choices": [], "cost": "0.1", "obfuscation": "x8fk"}), id="odds and ends"),
            pytest.param(event({"choices": [{"delta": None}]}), id="a delta of null"),
            pytest.param(event({"choices": [{"delta": {"tool_calls": None}}]}), id="calls of null"),
            pytest.param(event({"choices": [{"delta": {"tool_calls": []}}]}), id="no calls"),
            pytest.param(event({"choices": [], "error": None, "detail": None}), id="an error of null"),
        ],
    )
    def test_what_real_servers_send_beside_an_answer_is_no_error(self, innocent: bytes) -> None:
        for stream in (innocent + HI + END, HI + innocent + END):
            assert answering.blocks(answer(stream)) == [("text", "hi")]

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (event({"object": "error", "message": "boom", "code": 500}), "boom"),
            (event({"object": "error", "choices": [], "message": "boom"}), "boom"),
            (event({"detail": "boom"}), "boom"),
            (event({"detail": [{"loc": ["body"], "msg": "boom"}]}), "boom"),
            (event({"error": "boom"}), "boom"),
            (event({"error": {"message": "boom"}, "choices": []}), "boom"),
            (event([{"error": {"message": "boom"}}]), "boom"),
            (event({"message": "boom"}), "boom"),
            (event({"code": 500, "msg": "boom"}), ""),
            (event({"choices": None, "base_resp": {"status_code": 1013, "status_msg": "boom"}}), "boom"),
            (event({"id": "x", "x_groq": {"error": "boom"}}), "boom"),
            (
                event({"choices": [{"delta": {}, "finish_reason": "error", "error": {"message": "boom"}}]}),
                "boom",
            ),
            (event({"choices": [{"delta": {}, "error": {"message": "boom"}}]}), "boom"),
            (b'event: error\ndata: {"message":"boom"}\n\n', "boom"),
            (b'event: error\ndata: {"error":{"message":"boom"}}\n\n', "boom"),
            (b"event:error\ndata: boom\n\n", "boom"),
            (b"event: error\ndata: {}\n\n", ""),
            (b"event: error\n\n", ""),
            (b'event: error\ndata: {"choices":[{"delta":{"content":"boom"}}]}\n\n', ""),
        ],
    )
    def test_an_error_in_any_shape_is_one(self, error: bytes, message: str) -> None:
        decoder = ChatCompletionsDecoder()
        chunks, _ = decoder.feed(HI + error + END)
        (reported,) = (chunk.error for chunk in chunks if chunk.error)
        assert message in str(reported)

    @pytest.mark.parametrize(
        "object",
        [
            *(b"null", b"7", b'"hi"', b"[]", b"[1]", b"<html>", b"{", b'{"choices":[{"delta":{"content":"a'),
            *(
                b'{"choices": 7}',
                b'{"choices": {}, "a": 1}',
                b'{"choices": {"delta": {}}}',
                b'{"choices": "x"}',
            ),
            *(
                b'{"choices": [7]}',
                b'{"choices": ["x"]}',
                b'{"choices": [[]], "a": [1]}'.replace(b"[[]]", b"[[1]]"),
            ),
            *(b'{"choices": [{"delta": ["hi"]}]}', b'{"choices": [{"delta": "hi"}]}'),
            *(b'{"choices": [{"delta": 7}]}', b'{"choices": [{"message": "hi"}]}'),
            b'{"choices": [{"delta": {"tool_calls": {"index": 0}}}]}',
            b'{"choices": [{"delta": {"tool_calls": ["read"]}}]}',
            b'{"choices": [{"delta": {"tool_calls": [{"function": "read"}]}}]}',
            b'{"choices": [{"delta": {"function_call": "read"}}]}',
            *(
                b'{"response": "hi"}',
                b'{"text": "hi"}',
                b'{"foo": 1}',
                b'{"model": "m", "message": {"content": "hi"}}',
            ),
        ],
    )
    def test_what_is_neither_is_refused(self, object: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            answer(HI + b"data: " + object + b"\n\n" + END)


class TestOddPlaces:
    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param(
                {"choices": [{"delta": {}, "finish_reason": "stop", "usage": "%"}]}, id="Moonshot's"
            ),
            pytest.param(
                {"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"usage": "%"}}, id="Groq's"
            ),
            pytest.param({"choices": [], "x_groq": {"usage": "%"}}, id="Groq's, apart"),
            pytest.param({"usage": "%"}, id="apart, without choices"),
        ],
    )
    @pytest.mark.parametrize(
        "usage",
        [
            pytest.param({"cached_tokens": 60}, id="cached tokens in no details"),
            pytest.param({"prompt_tokens_details": {"cached_tokens": 60}}, id="cached tokens"),
            pytest.param({"prompt_cache_hit_tokens": 60}, id="DeepSeek's"),
        ],
    )
    def test_usage_is_found(self, fields: Any, usage: Any) -> None:
        usage = {"prompt_tokens": 100, "completion_tokens": 20, **usage}
        told = event(json.loads(json.dumps(fields).replace('"%"', json.dumps(usage))))
        message = answer(HI + told + END)
        assert isinstance(message, Message)
        assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (40, 60)
        assert message.usage.output_tokens == 20

    def test_what_vllm_wrote_into_its_cache(self) -> None:
        usage = {
            "prompt_tokens": 100,
            "prompt_tokens_details": {"cached_tokens": 60, "created_cache_tokens": 30},
        }
        message = answer(HI + END.replace(b"data: [DONE]", event({"choices": [], "usage": usage}).strip()))
        counts = message.usage
        assert (
            counts.input_tokens,
            counts.cache_read_input_tokens,
            counts.cache_creation_input_tokens,
        ) == (10, 60, 30)

    @pytest.mark.parametrize("field", ["stop_reason", "matched_stop", "stop_str"])
    def test_the_stop_string_that_the_back_end_found(self, field: str) -> None:
        end = event({"choices": [{"delta": {}, "finish_reason": "stop", field: "END"}]})
        message = answer(HI + end, stop_sequences=("END",))
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
        assert (
            answer(HI + end.replace(b'"END"', b"151645"), stop_sequences=("END",)).stop_reason == "end_turn"
        )


class TestOtherFormats:
    @pytest.mark.parametrize(
        "object",
        [
            b'{"foo": 1}',
            b'{"choices": [{"delta": {}}]}',
            b"null",
            b'{"candidates": 7}',
            b'{"candidates": ["a"]}',
        ],
    )
    def test_gemini_refuses_what_is_no_answer(self, object: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            GeminiDecoder().feed(b"data: " + object + b"\n\n")

    @pytest.mark.parametrize(
        "object",
        [
            *(b'{"detail": "boom"}', b'{"error": {"message": "boom"}}', b'[{"error": {"message": "boom"}}]'),
            b'{"object": "error", "message": "boom"}',
        ],
    )
    def test_gemini_knows_an_error(self, object: bytes) -> None:
        ((chunk,), _) = GeminiDecoder().feed(b"data: " + object + b"\n\n")
        assert "boom" in str(chunk.error)
        ((chunk,), _) = GeminiDecoder().feed(b"event: error\ndata: boom\n\n")
        assert "boom" in str(chunk.error)

    @pytest.mark.parametrize(
        "object", [b"{}", b'{"responseId": "r", "modelVersion": "m"}', b'{"candidates": []}']
    )
    def test_gemini_passes_over_what_says_nothing(self, object: bytes) -> None:
        assert not any(chunk.error for chunk in GeminiDecoder().feed(b"data: " + object + b"\n\n")[0])

    @pytest.mark.parametrize(
        "line", [b'{"foo": 1}', b'{"response": "hi"}', b"null", b'{"message": "hi"}', b'{"message": ["a"]}']
    )
    def test_ollama_refuses_what_is_no_line_of_its_own(self, line: bytes) -> None:
        try:
            ((chunk,), _) = OllamaDecoder().feed(line + b"\n")
        except ValueError:
            return
        assert chunk.error

    def test_ollama_gives_no_reason_where_its_runner_was_cut_off(self) -> None:
        lines = b'{"message":{"content":"hi"}}\n{"message":{"content":""},"done":true}\n'
        chunks, over = OllamaDecoder().feed(lines)
        assert over
        assert (
            answering.script(*chunks)[-1] == "error api_error: upstream closed the stream before completing"
        )

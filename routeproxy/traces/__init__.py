"""Distributed traces: a span for each request and each attempt, over OTLP. Nothing of prompts is in them."""

"""The only room that knows LiteLLM."""

"""The rules file to start from without a configuration to migrate: it serves at once, and shows what to
change."""

STARTER = """\
# What this proxy does with each request. It serves as it stands, without a key, and says back what it hears:
#
#     routeproxy serve
#
# Rules are read from top to bottom, and the first that matches decides. Save this file and the change is live
# within a second; a mistake changes nothing and is reported with its line. What stands in comments below is
# there to be uncommented.

[server]
host = "127.0.0.1"                     # 0.0.0.0 to serve the network: set ANTHROPIC_AUTH_TOKEN first
port = 8082

# --- Who answers. A type's usual address and key variable are built in, so one line is a whole provider. Keys
# stand in the environment or in a `.env` beside this file, never in here.

[providers.echo]                       # says back what you said; needs no key

# [providers.openai]                   # OPENAI_API_KEY
# [providers.gemini]                   # GEMINI_API_KEY
# [providers.anthropic]                # ANTHROPIC_API_KEY; bytes go through as they come

# [providers.ollama]                   # on this machine
# num_ctx = 32768                      # Ollama's own default cuts long prompts without a word

# [providers.corp]                     # anything that speaks OpenAI's chat API: vLLM, llama.cpp, a gateway
# type = "openai_compatible"
# base_url = "https://llm.corp.example/v1"
# api_key = "env:CORP_API_KEY"
# zone = "private"                     # local, private or public: where the bytes go

# --- The rules. Each needs a name and targets; the next target is tried when one is down or overloaded.

# [[rules]]
# name = "private data stays inside"
# match.headers.x-data-class = ["internal", "phi"]
# targets = ["corp/llama-3.3-70b", "ollama/llama3.3:70b"]

# [[rules]]                            # titles, summaries, permission checks: cheap models do them well
# name = "background work"
# match.model = "haiku"
# targets = ["openai/gpt-4.1-mini", "gemini/gemini-2.5-flash"]

# [[rules]]
# name = "very long prompts"
# match.input_tokens.min = 150_000
# targets = "gemini/gemini-2.5-pro"

# [[rules]]
# name = "Claude itself"
# match.model = "opus"
# targets = "anthropic/*"              # the model that the client asked for

# --- Everything else.

[default]
targets = "echo/echo"                  # then, for example: ["openai/gpt-4.1", "gemini/gemini-2.5-pro"]
"""


def starter() -> str:
    return STARTER

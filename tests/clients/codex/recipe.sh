mkdir -p ~/.codex
cat > ~/.codex/config.toml << END
model = "$MODEL"
model_provider = "slurminfer"
model_context_window = $CONTEXT
web_search = "disabled"

[model_providers.slurminfer]
name = "slurminfer"
base_url = "$OPENAI_BASE_URL"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
END
codex exec --skip-git-repo-check "$PROMPT"

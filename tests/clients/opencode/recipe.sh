cat > opencode.json << END
{
  "provider": {
    "slurminfer": {
      "npm": "@ai-sdk/openai-compatible",
      "options": {"baseURL": "$OPENAI_BASE_URL", "apiKey": "{env:OPENAI_API_KEY}"},
      "models": {"$MODEL": {"limit": {"context": $CONTEXT, "output": 8192}}}
    }
  }
}
END
echo "$PROMPT" | opencode run --model "slurminfer/$MODEL"

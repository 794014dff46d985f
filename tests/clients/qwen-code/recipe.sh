export OPENAI_BASE_URL OPENAI_API_KEY OPENAI_MODEL=$MODEL
qwen --auth-type openai --approval-mode yolo --prompt "$PROMPT"

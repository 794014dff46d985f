export OPENAI_BASE_URL OPENAI_API_KEY OPENAI_MODEL=$MODEL QWEN_CODE_MAX_OUTPUT_TOKENS=8192
qwen --auth-type openai --approval-mode yolo --prompt "$PROMPT"

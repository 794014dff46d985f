export OPENAI_API_BASE=$OPENAI_BASE_URL
aider --model "openai/$MODEL" --no-show-model-warnings --no-auto-commits --yes-always --message "$PROMPT" poem.txt

lm-eval run --model local-chat-completions --include_path tasks --tasks capitals_generate --apply_chat_template \
    --model_args model=SmolLM2-135M-Instruct,base_url=$OPENAI_BASE_URL/chat/completions --output_path out --log_samples

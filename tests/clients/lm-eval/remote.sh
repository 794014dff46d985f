lm-eval run --model local-completions --include_path tasks --tasks capitals_choice --output_path remote --log_samples \
    --model_args model=SmolLM2-135M-Instruct,base_url=$OPENAI_BASE_URL/completions,tokenizer_backend=remote,auth_token=$OPENAI_API_KEY

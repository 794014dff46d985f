lm-eval run --model local-completions --include_path tasks --tasks capitals_choice --output_path out --log_samples \
    --model_args model=SmolLM2-135M-Instruct,base_url=$OPENAI_BASE_URL/completions,tokenizer=$MODEL_PATH

cat > "$(dirname "$(llm logs path)")/extra-openai-models.yaml" << END
- model_id: slurminfer
  model_name: SmolLM2-135M-Instruct
  api_base: $OPENAI_BASE_URL
  api_key_name: slurminfer
  supports_tools: true
  supports_schema: true
END
llm keys set slurminfer --value "$OPENAI_API_KEY"
llm -m slurminfer -o max_tokens 100 -o temperature 0 'What is the capital of France?'

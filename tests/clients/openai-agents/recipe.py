from agents import Agent, ModelSettings, Runner, set_default_openai_api, set_tracing_disabled

set_default_openai_api("chat_completions")
set_tracing_disabled(True)  # else traces go to OpenAI
agent = Agent(
    name="Assistant",
    model="SmolLM2-135M-Instruct",
    model_settings=ModelSettings(max_tokens=100, temperature=0),
)
print(Runner.run_sync(agent, "What is the capital of France?").final_output)

import os

import dspy

lm = dspy.LM(
    "openai/SmolLM2-135M-Instruct",
    api_base=os.environ["OPENAI_BASE_URL"],
    max_tokens=200,
    temperature=0,
)
dspy.configure(lm=lm)
print(lm("What is the capital of France?")[0])

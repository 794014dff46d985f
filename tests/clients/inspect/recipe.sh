cat > capitals.py << END
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

@task
def capitals():
    return Task(
        dataset=[Sample(input="What is the capital of France?", target="Paris")],
        solver=generate(),
        scorer=includes(),
    )
END
export SLURMINFER_BASE_URL=$OPENAI_BASE_URL SLURMINFER_API_KEY=$OPENAI_API_KEY
inspect eval capitals.py --model openai-api/slurminfer/SmolLM2-135M-Instruct --max-tokens 50 --temperature 0

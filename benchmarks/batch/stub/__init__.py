"""An OpenAI endpoint that costs as little as can be: what drivers are measured with."""

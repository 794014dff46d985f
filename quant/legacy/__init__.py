"""AutoAWQ, which needs an environment of its own (requirements/legacy.txt). Start reading at autoawq.py."""

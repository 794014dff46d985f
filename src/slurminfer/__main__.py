"""`python -m slurminfer`"""

from .cli import main

main()

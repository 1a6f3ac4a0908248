"""Write the reports on several jobs by one process: most of a short command's time is its imports.

inspect_jobs.py FOLDER NAME=JOB...
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from agent.inspect.cli import main

for pair in sys.argv[2:]:
    name, _, job = pair.partition("=")
    with Path(sys.argv[1], name).open("w") as file, redirect_stdout(file):
        main([job, "--json"], standalone_mode=False)

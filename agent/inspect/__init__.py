"""jobinspect: what a job did and what held it back."""

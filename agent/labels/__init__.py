"""Labels for any job: which roof each GPU is under, second by second."""

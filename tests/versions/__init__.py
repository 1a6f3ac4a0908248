"""Which versions of libraries and of Python rooflight is tested with."""

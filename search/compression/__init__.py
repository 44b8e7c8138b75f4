"""From a teacher and a number of milliseconds to a finished small model."""

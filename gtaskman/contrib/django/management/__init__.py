"""For ``manage.py``, which looks here."""
